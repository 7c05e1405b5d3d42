"""The data of a search's figures, computed from its result."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.search.record import TuneResult


@dataclass(frozen=True, slots=True)
class PlateauPoints:
    """One hyperparameter's runs of the longer length, by rising value.

    losses: nats per trainable token on the search's rows; half_widths: of the interval of each
    difference to the lowest loss, 0 for that. diverged: values that came to no loss. best,
    best_loss: the best run's; start: the plan's own. Where the logarithm has no place for one, that
    loss and that start are None. low, high: the plateau; region: bounds at 90%, None where there
    are none.
    """

    name: str
    values: tuple[float, ...]
    losses: tuple[float, ...]
    half_widths: tuple[float, ...]
    diverged: tuple[float, ...]
    best: float
    best_loss: float | None
    start: float | None
    low: float
    high: float
    region: tuple[float, float] | None


def plateau_points(result: TuneResult, name: str) -> PlateauPoints | None:
    """None where every run diverged, so that there is nothing to draw."""
    if result.best is None:
        return None
    runs = sorted(
        (run for run in result.runs if not run.is_short and run.values[name] > 0),
        key=lambda run: run.values[name],
    )
    sound = [
        (run.values[name], run.search_loss, run.to_lowest.high - run.to_lowest.effect)
        for run in runs
        if run.search_loss is not None and run.to_lowest is not None
    ]
    low, high = result.plateau[name]
    return PlateauPoints(
        name=name,
        values=tuple(value for value, _, _ in sound),
        losses=tuple(loss for _, loss, _ in sound),
        half_widths=tuple(half for _, _, half in sound),
        diverged=tuple(run.values[name] for run in runs if run.search_loss is None),
        best=result.best[name],
        best_loss=next((run.search_loss for run in runs if run.values == result.best), None),
        start=result.start[name] if result.start[name] > 0 else None,
        low=low,
        high=high,
        region=result.region.get(name),
    )
