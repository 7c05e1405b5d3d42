"""What the page's figures show, as plain values; `drawing` makes pictures of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from trimtab.runs.records import DataRecord, EvaluationRecord, UpdateRecord

MIN_UPDATES_TO_SMOOTH = 20
SMOOTHED_SHARE = 1 / 20
MAX_POINTS = 2000


@dataclass(frozen=True, slots=True)
class Curve:
    """Points in the order of x; all finite."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class LossCurve:
    """Losses in nats per trainable token over weight updates.

    `train` is every update as it was measured; `smoothed` lies over it and replaces nothing, and
    is empty for short runs. `held_out` begins at update 0. `kept_step` is the update whose
    weights were kept. `num_not_finite` losses cannot be drawn.
    """

    train: Curve
    smoothed: Curve
    held_out: Curve
    kept_step: int | None
    num_not_finite: int


@dataclass(frozen=True, slots=True)
class LengthBars:
    """`counts[i]` rows have at least `edges[i]` and under `edges[i + 1]` tokens."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    max_length: float | None


def loss_curve(
    updates: Sequence[UpdateRecord], evaluations: Sequence[EvaluationRecord], kept_step: int | None
) -> LossCurve | None:
    """None where no loss is finite."""
    train, num_bad_train = _curve([(one.step, one.loss) for one in updates])
    held_out, num_bad_held_out = _curve([(one.step, one.eval_loss) for one in evaluations])
    if not len(train) and not len(held_out):
        return None
    return LossCurve(
        train=thinned(train, MAX_POINTS),
        smoothed=thinned(smoothed_loss(updates), MAX_POINTS),
        held_out=held_out,
        kept_step=kept_step,
        num_not_finite=num_bad_train + num_bad_held_out,
    )


def learning_rate_curve(updates: Sequence[UpdateRecord]) -> Curve | None:
    """The rate of every update that was made; None where there is none."""
    curve, _ = _curve([(one.step, one.learning_rate) for one in updates])
    return thinned(curve, MAX_POINTS) if len(curve) else None


def grad_norm_curve(updates: Sequence[UpdateRecord]) -> Curve | None:
    """The gradient norm of every update before clipping; None where none is finite."""
    curve, _ = _curve([(one.step, one.grad_norm) for one in updates])
    return thinned(curve, MAX_POINTS) if len(curve) else None


def length_bars(data: DataRecord, max_length: float | None) -> LengthBars | None:
    """None where there is no row."""
    if not any(data.histogram_counts):
        return None
    return LengthBars(tuple(data.histogram_edges), data.histogram_counts, max_length)


def smoothed_loss(updates: Sequence[UpdateRecord]) -> Curve:
    """The mean loss of the trainable tokens of a centred window of a twentieth of the updates.

    Towards both ends the window shrinks evenly, so that it stays centred and the first and last
    points are the measured ones. Empty below `MIN_UPDATES_TO_SMOOTH` finite losses.
    """
    finite = [one for one in updates if math.isfinite(one.loss) and one.num_trainable_tokens]
    if len(finite) < MIN_UPDATES_TO_SMOOTH:
        return Curve((), ())
    tokens = [0, *accumulate(one.num_trainable_tokens for one in finite)]
    nats = [0.0, *accumulate(one.loss * one.num_trainable_tokens for one in finite)]
    widest = max(1, round(len(finite) * SMOOTHED_SHARE / 2))
    smoothed = []
    for i in range(len(finite)):
        half = min(widest, i, len(finite) - 1 - i)
        start, stop = i - half, i + half + 1
        smoothed.append((nats[stop] - nats[start]) / (tokens[stop] - tokens[start]))
    return Curve(tuple(float(one.step) for one in finite), tuple(smoothed))


def thinned(curve: Curve, max_points: int) -> Curve:
    """At most `max_points` points, with every peak and trough: a slice's lowest and highest."""
    if len(curve) <= max_points:
        return curve
    num_slices = max_points // 2
    bounds = [len(curve) * i // num_slices for i in range(num_slices + 1)]
    kept: list[int] = []
    for start, stop in pairwise(bounds):
        indices = range(start, stop)
        kept += sorted(
            {min(indices, key=curve.y.__getitem__), max(indices, key=curve.y.__getitem__)}
        )
    return Curve(tuple(curve.x[i] for i in kept), tuple(curve.y[i] for i in kept))


def _curve(points: Sequence[tuple[float, float]]) -> tuple[Curve, int]:
    """The finite points, and the number of the others."""
    finite = [(float(x), y) for x, y in points if math.isfinite(y)]
    xs, ys = tuple(x for x, _ in finite), tuple(y for _, y in finite)
    return Curve(xs, ys), len(points) - len(finite)
