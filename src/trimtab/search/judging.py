"""From the runs of a search to what they say: plateau, region, horizon, and the last word."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from trimtab.planning.rules.ruling import rounded
from trimtab.search import paired
from trimtab.search.design import Design
from trimtab.search.halves import Halves, at
from trimtab.search.paired import PairedDifference, paired_difference
from trimtab.search.record import Horizon, TriedRun
from trimtab.search.region import LEVEL, best_of_equal, best_region, lowest_points
from trimtab.search.space import Axis, axis_of, points
from trimtab.search.storage import Finished
from trimtab.search.surrogate import Array
from trimtab.workflow.trial_runs import TrialRun

MIN_RUNS_FOR_A_REGION = 3


@dataclass(frozen=True)
class Judged:
    """The finished runs of one length; `reference` is that of the plan's values, where the space
    has no place for it."""

    design: Design
    halves: Halves
    finished: Sequence[Finished]
    reference: TrialRun | None = None

    @cached_property
    def lowest(self) -> TrialRun | None:
        """The run with the lowest loss on the search's rows; None where all diverged."""
        sound = [each for each in self.runs if each.diverged is None]
        return min(sound, key=self._loss, default=None)

    @cached_property
    def best(self) -> TrialRun | None:
        """Of the runs that are equal to the lowest, the one at which the fitted curve is lowest.

        The lowest itself where too few runs have a loss for a curve, and where it is the plan's
        own; None where all diverged.
        """
        lowest = self.lowest
        if lowest is None or lowest == self.start or not self._is_enough():
            return lowest
        equal = self._on_plateau(lowest)
        is_equal_N = np.array([each.run in equal for each in self.finished])
        place = best_of_equal(*self._points(), is_equal_N, loss_sd=self._noise())
        return self.finished[place].run

    @property
    def start(self) -> TrialRun | None:
        """The run of the plan's own values; None where it was not made."""
        if self.design.start is None:
            return self.reference
        wanted = self.design.overrides(self.design.start)
        return next((run for run in self.runs if run.overrides == wanted), None)

    def sound_values(self, name: str) -> list[float]:
        """The values of the runs that came to a loss."""
        return [run.overrides[name] for run in self.runs if run.diverged is None]

    @property
    def runs(self) -> list[TrialRun]:
        """The finished ones, and before them the reference where there is one."""
        alone = [] if self.reference is None else [self.reference]
        return alone + [each.run for each in self.finished]

    def _loss(self, run: TrialRun) -> float:
        loss = search_loss(run, self.halves)
        return math.inf if loss is None else loss

    def tried(self, *, is_short: bool) -> list[TriedRun]:
        start = self.start
        first = 0 if self.reference is None else -1
        return [
            TriedRun(
                number=number,
                values=dict(run.overrides),
                search_loss=search_loss(run, self.halves),
                to_lowest=self._to_lowest(run),
                diverged=run.diverged,
                is_start=start is not None and run.overrides == start.overrides,
                is_short=is_short,
                num_steps=run.num_steps,
                num_tokens=run.num_tokens,
                num_eval_tokens=run.num_eval_tokens,
                seconds=run.total_seconds,
            )
            for number, run in enumerate(self.runs, start=first)
        ]

    def _to_lowest(self, run: TrialRun) -> PairedDifference | None:
        lowest = self.lowest
        if lowest is None or run.diverged is not None:
            return None
        return compared(run, lowest, self.halves.search)

    @cached_property
    def equal_to_lowest(self) -> list[TrialRun]:
        """The runs, the lowest among them, that no paired test tells from it."""
        runs = [run for run in self.runs if run.diverged is None]
        return [run for run in runs if (near := self._to_lowest(run)) and near.is_within_noise]

    def is_told_apart(self, best: TrialRun) -> bool:
        """Whether a run with a loss is worse than the best one, or none but that came to a loss.

        On the rows that did not choose the best, at a level corrected for the number of runs.
        """
        others = [run for run in self.runs if run != best and not run.is_lost]
        sound = [run for run in others if run.diverged is None]
        if not sound:
            return bool(others)
        level = 1 - (1 - paired.LEVEL) / len(sound)
        return any(compared(run, best, self.halves.test, level=level).low > 0 for run in sound)

    def plateau(self) -> dict[str, tuple[float, float]]:
        """By name, the least and the largest tried value that is equal to the lowest.

        Of one hyperparameter alone it ends where a value between is worse.
        """
        lowest = self.lowest
        if lowest is None:
            return {}
        equal = self._on_plateau(lowest)
        return {
            name: (
                min(run.overrides[name] for run in equal),
                max(run.overrides[name] for run in equal),
            )
            for name in self.design.names
        }

    def _on_plateau(self, lowest: TrialRun) -> list[TrialRun]:
        if len(self.design.spaces) == 1:
            return self._unbroken(self.design.names[0], self.runs, lowest)
        return self.equal_to_lowest

    def line(self, name: str, taken: Mapping[str, Any]) -> tuple[float, float] | None:
        """The ends of what is equal to the lowest with all else as taken; None where nothing is.

        It ends where a value between is worse.
        """
        others = {each: value for each, value in taken.items() if each != name}
        on_line = [run for run in self.runs if others.items() <= run.overrides.items()]
        best = self.best
        if best is None or best not in on_line:
            return None
        equal = self._unbroken(name, on_line, best)
        values = [run.overrides[name] for run in equal]
        return min(values), max(values)

    def _unbroken(self, name: str, runs: Sequence[TrialRun], around: TrialRun) -> list[TrialRun]:
        """Those of the runs that are equal to the lowest, with no worse one between them and
        `around`.
        """
        middle = around.overrides[name]
        is_equal = self.equal_to_lowest
        equal = [run for run in runs if run in is_equal]
        worse = [run.overrides[name] for run in runs if run not in is_equal]
        low = max((value for value in worse if value < middle), default=-math.inf)
        high = min((value for value in worse if value > middle), default=math.inf)
        return [run for run in equal if low < run.overrides[name] < high]

    def region(self) -> dict[str, tuple[float, float]]:
        """Bounds that hold the best values at 90%; nothing where too few runs say anything.

        What is equal to the lowest is inside: the curve is smoother than runs that lie near.
        """
        if not self._is_enough():
            return {}
        points_ND, losses_N = self._points()
        found = best_region(points_ND, losses_N, loss_sd=self._noise())
        plateau = self.plateau()
        bounds = {}
        for place, axis in enumerate(self._axes()):
            low, high = plateau[axis.name]
            low = min(low, rounded(axis.value(float(found.low_D[place]))))
            high = max(high, rounded(axis.value(float(found.high_D[place]))))
            bounds[axis.name] = (low, high)
        return bounds

    def drawn_logs(self, name: str) -> Array | None:
        """Logarithms of the best value, drawn from what the runs leave possible."""
        if not self._is_enough():
            return None
        lowest_KD, _ = lowest_points(*self._points(), loss_sd=self._noise(), seed=self.design.seed)
        place = self.design.names.index(name)
        axis = self._axes()[place]
        drawn = [math.log(axis.value(float(each))) for each in lowest_KD[:, place]]
        return np.array(drawn)

    def _is_enough(self) -> bool:
        sound = [each for each in self.finished if each.run.diverged is None]
        return len(sound) >= MIN_RUNS_FOR_A_REGION

    def _axes(self) -> list[Axis]:
        axes = [axis_of(space.name, space.distribution) for space in self.design.spaces]
        return [axis for axis in axes if axis is not None]

    def _points(self) -> tuple[Array, Array]:
        ran = [each.run.overrides for each in self.finished]
        losses = [self._loss(each.run) for each in self.finished]
        return points(self._axes(), ran), np.array(losses)

    def _noise(self) -> float:
        """The middle standard error of a difference to the lowest, in nats per token."""
        errors = [
            near.standard_error
            for each in self.finished
            if (near := self._to_lowest(each.run)) and near.standard_error > 0
        ]
        return float(np.median(errors)) if errors else 0.0


def search_loss(run: TrialRun, rows: Halves) -> float | None:
    """Nats per trainable token over the rows that the search sees; None where it diverged."""
    if run.diverged is not None:
        return None
    tokens = at(run.row_num_trainable_tokens, rows.search)
    return math.fsum(at(run.row_losses, rows.search)) / sum(tokens)


def compared(
    run: TrialRun, reference: TrialRun, places: Sequence[int], *, level: float = paired.LEVEL
) -> PairedDifference:
    """On the held-out rows at these places."""
    return paired_difference(
        at(run.row_losses, places),
        at(reference.row_losses, places),
        at(run.row_num_trainable_tokens, places),
        level=level,
    )


def fitted_horizon(long: Judged, short: Judged, name: str) -> Horizon | None:
    """How the best value moves with the length; None where one of the lengths says too little."""
    at_long, at_short = long.drawn_logs(name), short.drawn_logs(name)
    if at_long is None or at_short is None:
        return None
    lengths = (long.design.num_steps, long.design.short_num_steps)
    # Drawn apart: the k-th curve of one length has nothing to do with the k-th of the other.
    shuffled = np.random.default_rng(long.design.seed).permutation(at_short)
    exponents = (at_long - shuffled) / math.log(lengths[0] / lengths[1])
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(exponents, [outside, 1 - outside])
    return Horizon(float(np.median(exponents)), float(low), float(high), *lengths)


def against_start(judged: Judged) -> PairedDifference | None:
    """The best run against that of the plan's values, on rows that the search never saw."""
    best, start = judged.best, judged.start
    if best is None or start is None or start.diverged is not None or best == start:
        return None
    return compared(best, start, judged.halves.test)


def taken(
    judged: Judged, test: PairedDifference | None, horizon: Horizon | None
) -> dict[str, Any] | None:
    """The values to take; None where the plan's own stay.

    They stay unless the test says that the best is better, or they diverged where it did not. An
    identified horizon moves the rate toward that of the run's length.
    """
    best, start = judged.best, judged.start
    if best is None or best == start:
        return None
    start_diverged = start is not None and start.diverged is not None and not start.is_lost
    if not (start_diverged or (test is not None and test.is_better)):
        return None
    values = dict(best.overrides)
    if horizon is not None and horizon.is_identified and "learning_rate" in values:
        values["learning_rate"] = _moved_rate(judged, best, horizon)
    return values


def _moved_rate(judged: Judged, best: TrialRun, horizon: Horizon) -> float:
    """No further than was run, nor past the plan's own rate to the side that the test rejected."""
    design = judged.design
    rate: float = best.overrides["learning_rate"]
    factor = (design.run_num_steps / design.num_steps) ** horizon.cautious_exponent
    start = judged.start
    side = 0.0 if start is None else rate - start.overrides["learning_rate"]
    tried = [
        each
        for each in judged.sound_values("learning_rate")
        if start is None or side * (each - start.overrides["learning_rate"]) >= 0
    ]
    return min(max(rounded(rate * factor), min(tried)), max(tried))


def verdict(
    judged: Judged,
    test: PairedDifference | None,
    values: Mapping[str, Any] | None,
) -> str:
    """One sentence, without a full stop."""
    best, start = judged.best, judged.start
    if best is None:
        return "every run diverged, so nothing was found"
    found = told(best.overrides)
    if best == start:
        return f"{found}, the plan's own, {_why_best(judged)}; it stays"
    if start is None:
        return f"the plan's own stays: {found} {_why_best(judged)}, and the plan's own was not run"
    if start.is_lost:
        return (
            f"the plan's own stays: {found} {_why_best(judged)}, and the plan's own could not be "
            f"compared ({start.diverged})"
        )
    took = f"{found} is taken"
    if values == start.overrides:
        assert test is not None
        return (
            f"{told(values)}, the plan's own, stays: {found} was better by {_effect(test)} in runs "
            f"of {judged.design.num_steps:,} updates, and the best rate moves back to it toward "
            f"the run's {judged.design.run_num_steps:,}"
        )
    if values is not None and values != best.overrides:
        design = judged.design
        was_run = values["learning_rate"] in judged.sound_values("learning_rate")
        took = (
            f"{told(values)} is taken, {'' if was_run else 'not run itself: '}moved toward the "
            f"run's {design.run_num_steps:,} updates from {found}, the best in runs of "
            f"{design.num_steps:,}"
        )
    if start.diverged is not None:
        return f"{took}: the plan's own came to no loss ({start.diverged})"
    assert test is not None
    rows = f"{test.num_rows} rows that the search never saw"
    if values is None:
        return f"the plan's own stays: {found} differs from it by {_effect(test)} on {rows}, " + (
            "which is noise" if test.is_within_noise else "which is no gain"
        )
    return f"{took}: {_effect(test)} against the plan's own on {rows}"


def _why_best(judged: Judged) -> str:
    if judged.best == judged.lowest:
        return "had the lowest loss"
    return "is where the curve through the runs is lowest, of those equal to the lowest loss"


def told(values: Mapping[str, Any]) -> str:
    """`learning_rate 0.0003, weight_decay 0.01`."""
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _effect(test: PairedDifference) -> str:
    return f"{test.effect:+.4f} nats per token (95% interval {test.low:+.4f} to {test.high:+.4f})"
