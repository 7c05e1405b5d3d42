"""What a study's figures show, as plain values; `study_drawing` makes pictures of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest

from trimtab.report.figures import MAX_POINTS, Curve, thinned
from trimtab.study.result import ArmResult, StudyResult
from trimtab.study.words import told_value


@dataclass(frozen=True, slots=True)
class ForestRow:
    """An arm's effect with its interval, as shares of the reference's loss; negative is better.

    low and high are None where there is no interval, effect where there is none either.
    """

    label: str
    verdict: str
    effect: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class ForestPlot:
    """The arms beside the reference, in the study's order; `margin` is a share as well."""

    rows: tuple[ForestRow, ...]
    reference: str
    margin: float


@dataclass(frozen=True, slots=True)
class ArmCurve:
    """The mean of an arm's training loss over the seeds that got so far; x is the share of the
    run's updates."""

    label: str
    curve: Curve


def forest_plot(result: StudyResult) -> ForestPlot | None:
    """None where no arm has an effect to draw."""
    rows = tuple(map(_forest_row, result.arms[1:]))
    if all(row.effect is None for row in rows):
        return None
    return ForestPlot(rows, told_value(result.arms[0].value), result.equivalence_margin)


def arm_curves(result: StudyResult) -> tuple[ArmCurve, ...]:
    """The arms that have losses, in the study's order."""
    found = ((told_value(arm.value), _mean_curve(arm)) for arm in result.arms)
    return tuple(ArmCurve(label, curve) for label, curve in found if len(curve))


def _forest_row(arm: ArmResult) -> ForestRow:
    comparison = arm.comparison
    assert comparison is not None
    low, high = comparison.interval_share or (None, None)
    label = told_value(arm.value)
    return ForestRow(label, comparison.verdict, comparison.effect_share, low, high)


def _mean_curve(arm: ArmResult) -> Curve:
    by_update = zip_longest(*arm.curves)
    reached = [[loss for loss in losses if loss is not None] for losses in by_update]
    means = [math.fsum(losses) / len(losses) for losses in reached]
    points = [
        ((i + 1) / arm.num_steps, mean) for i, mean in enumerate(means) if math.isfinite(mean)
    ]
    curve = Curve(tuple(x for x, _ in points), tuple(y for _, y in points))
    return thinned(curve, MAX_POINTS)
