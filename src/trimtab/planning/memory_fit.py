"""Peak memory as real steps show it.

    peak = a + a'·accumulation + max(0, c₁·tokens + c₂·scored + c₃·Σ length² + copies − gradients)

A backward pass lets activations go, and the weights' copies in the compute format, while gradients
come; so its peak is either at its start, with all activations, or at its end, with all gradients;
`a` is the latter. Where gradients are accumulated they stand while the next micro-batch runs, and
nothing is subtracted.

Each checkpointing that was measured has a fit of its own, since what an allocator wastes differs
with what is kept; one that was not lies between its measured neighbours by the share of layers
that recompute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trimtab.planning.fact import Facts
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.regression import Correction, Prior, root_mean_square, solve
from trimtab.planning.rules.memory import (
    Checkpointing,
    MemoryArithmetic,
    num_recomputing_layers,
)
from trimtab.planning.trials import Point, by_checkpointing, measured_points

RELATIVE_NOISE = 0.01
"""Two processes that do the same differ by about this much in their resident sets."""
FIXED_WIDTH = 0.3
"""Weights, gradients and optimizer state can be counted; what an allocator adds to them cannot."""
HEAD_SIZE = 64
SCORE_SHARE = 0.1
"""The prior width of Σ length²: a tenth of attention that keeps every score in fp32."""
CLEARLY = 3
"""Times the late gradients: only a point that grew by more tells the slopes. Near the maximum's
edge activations find room that gradients will have, and grow less than they do beyond."""


@dataclass(frozen=True, slots=True)
class PeakCurve:
    """The formula of the module for one checkpointing; coefficients are a, a', c₁, c₂, c₃.

    `alone` and `accumulated` correct updates of one micro-batch, and of several.
    """

    coefficients: tuple[float, float, float, float, float]
    late_gradient_bytes: int
    copy_bytes: float
    max_scored_at_once: float
    alone: Correction
    accumulated: Correction

    def peak_bytes(self, size: MicroBatchSize, accumulates: bool) -> float:
        correction = self.accumulated if accumulates else self.alone
        return self.uncorrected(size, accumulates) + correction.fading_at(size.num_tokens)

    def uncorrected(self, size: MicroBatchSize, accumulates: bool) -> float:
        standing, accumulated, *_ = self.coefficients
        return standing + accumulated * accumulates + max(0.0, self.above_level(size, accumulates))

    def above_level(self, size: MicroBatchSize, accumulates: bool) -> float:
        """What the start of the backward pass has more of than its end."""
        return self.growing(size) - self.not_there_yet(accumulates)

    def growing(self, size: MicroBatchSize) -> float:
        """Activations and logits."""
        _, _, per_token, per_scored, per_square = self.coefficients
        return (
            per_token * size.num_tokens
            + per_scored * min(size.num_scored, self.max_scored_at_once)
            + per_square * size.sum_length_squared
        )

    def not_there_yet(self, accumulates: bool) -> float:
        """What the end of the backward pass has more of than its start, activations aside."""
        return (0 if accumulates else self.late_gradient_bytes) - self.copy_bytes


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """floor_bytes: the peak of loading the model, below which no update's peak can be.

    relative_residual: the largest of the curves' root mean squares of relative errors, before they
    are corrected by them.
    """

    arithmetic: MemoryArithmetic
    curves: Mapping[Checkpointing, PeakCurve]
    floor_bytes: int
    relative_residual: float

    def peak_bytes(
        self, size: MicroBatchSize, checkpointing: Checkpointing, *, accumulates: bool
    ) -> int:
        """The predicted peak of updates whose largest micro-batch is of `size`."""
        if checkpointing in self.curves:
            peak = self.curves[checkpointing].peak_bytes(size, accumulates)
        else:
            peak = self._between(size, checkpointing, accumulates)
        return max(self.floor_bytes, round(peak))

    def _between(
        self, size: MicroBatchSize, checkpointing: Checkpointing, accumulates: bool
    ) -> float:
        num_layers = self.arithmetic.num_layers
        wanted = num_recomputing_layers(num_layers, checkpointing)
        known = sorted(
            (num_recomputing_layers(num_layers, each), curve.peak_bytes(size, accumulates), each)
            for each, curve in self.curves.items()
        )
        below = [one for one in known if one[0] <= wanted]
        above = [one for one in known if one[0] >= wanted]
        if not below or not above:
            _, peak, nearest = (below or above)[-1 if below else 0]
            change = self.arithmetic.peak_bytes(size, checkpointing) - self.arithmetic.peak_bytes(
                size, nearest
            )
            return peak + change
        (low, low_peak, _), (high, high_peak, _) = below[-1], above[0]
        share = 0.0 if low == high else (wanted - low) / (high - low)
        return low_peak + share * (high_peak - low_peak)


def fit_memory(facts: Facts, arithmetic: MemoryArithmetic) -> MemoryFit | None:
    """The fit to the facts of the trials, moved to the planning process; None without any."""
    grouped = by_checkpointing(measured_points(facts))
    if not grouped:
        return None
    moved = facts.integer("trials.process_bytes") - facts.integer("trials.base_bytes")
    curves: dict[Checkpointing, PeakCurve] = {}
    residuals = []
    for checkpointing, points in grouped.items():
        peaks = [float(point.peak_bytes or 0) + moved for point in points]
        priors = _priors(
            arithmetic,
            checkpointing,
            process_bytes=facts.integer("trials.process_bytes") or arithmetic.process_bytes,
            hidden_size=facts.integer("model.hidden_size"),
        )
        curves[checkpointing] = curve = _fit(points, peaks, priors, arithmetic, checkpointing)
        residuals.append(
            root_mean_square(
                [
                    curve.uncorrected(point.size, _accumulates(point)) / peak - 1
                    for point, peak in zip(points, peaks, strict=True)
                ]
            )
        )
    return MemoryFit(
        arithmetic=arithmetic,
        curves=curves,
        floor_bytes=facts.integer("trials.loaded_bytes") + moved,
        relative_residual=max(residuals),
    )


def _accumulates(point: Point) -> bool:
    return point.trial.num_micro_batches > 1


def _priors(
    arithmetic: MemoryArithmetic,
    checkpointing: Checkpointing,
    *,
    process_bytes: int,
    hidden_size: int,
) -> tuple[Prior, ...]:
    """`process_bytes` is what the process was seen to hold before a model is loaded."""
    held = arithmetic.fixed_bytes - arithmetic.process_bytes + process_bytes
    num_recomputing = num_recomputing_layers(arithmetic.num_layers, checkpointing)
    num_keeping = arithmetic.num_layers - num_recomputing + 1
    num_heads = max(1, hidden_size // HEAD_SIZE)
    per_token = arithmetic.bytes_per_token(checkpointing)
    logits = arithmetic.logits_bytes_per_position
    return (
        Prior(held - arithmetic.copy_bytes("off"), FIXED_WIDTH * held),
        Prior(0.0, arithmetic.fixed_bytes / 4),
        # An allocator can waste a third of what a step without checkpointing would keep.
        Prior(per_token, per_token / 4 + arithmetic.bytes_per_token("off") / 3),
        Prior(logits, logits / 10),
        Prior(0.0, SCORE_SHARE * 4 * num_heads * num_keeping),
    )


def _fit(
    points: Sequence[Point],
    peaks: Sequence[float],
    priors: Sequence[Prior],
    arithmetic: MemoryArithmetic,
    checkpointing: Checkpointing,
) -> PeakCurve:
    """Which points stand on the level part is not known: the most likely of all answers is taken.

    Points on the level part are the smallest of their kind.
    """
    plain = PeakCurve(
        _coefficients(priors),
        arithmetic.late_gradient_bytes,
        arithmetic.copy_bytes(checkpointing),
        arithmetic.max_scored_at_once,
        Correction((), ()),
        Correction((), ()),
    )
    above = [plain.above_level(each.size, _accumulates(each)) for each in points]
    candidates = []
    for least in {-math.inf, *above, math.inf}:
        grows = [each >= least for each in above]
        found = _solved(plain, points, peaks, priors, grows)
        if all(
            _clearly_grows(found, point) for point, each in zip(points, grows, strict=True) if each
        ):
            candidates.append(found)
    curve = min(candidates, key=lambda each: _unlikeliness(each, points, peaks, priors))
    alone, accumulated = (_correction(curve, points, peaks, several) for several in (False, True))
    return replace(curve, alone=alone, accumulated=accumulated)


def _clearly_grows(curve: PeakCurve, point: Point) -> bool:
    accumulates = _accumulates(point)
    least = 0 if accumulates else CLEARLY * curve.late_gradient_bytes
    return curve.above_level(point.size, accumulates) > least


def _coefficients(priors: Sequence[Prior]) -> tuple[float, float, float, float, float]:
    a, b, c, d, e = (prior.mean for prior in priors)
    return a, b, c, d, e


def _solved(
    curve: PeakCurve,
    points: Sequence[Point],
    peaks: Sequence[float],
    priors: Sequence[Prior],
    grows: Sequence[bool],
) -> PeakCurve:
    """The curve through the points, of which these lie on its rising part."""
    features, targets = [], []
    for point, peak, is_growing in zip(points, peaks, grows, strict=True):
        size, accumulates = point.size, _accumulates(point)
        scored = min(size.num_scored, curve.max_scored_at_once)
        grown = (size.num_tokens, scored, size.sum_length_squared) if is_growing else (0, 0, 0)
        features.append((1.0, float(accumulates), *grown))
        targets.append(peak + curve.not_there_yet(accumulates) * is_growing)
    a, b, c, d, e = solve(features, targets, priors, relative_noise=RELATIVE_NOISE)
    return replace(curve, coefficients=(a, b, c, d, e))


def _unlikeliness(
    curve: PeakCurve, points: Sequence[Point], peaks: Sequence[float], priors: Sequence[Prior]
) -> float:
    """The sum of squares that `solve` makes small, of the curve as it is."""
    away = [
        (curve.uncorrected(point.size, _accumulates(point)) / peak - 1) / RELATIVE_NOISE
        for point, peak in zip(points, peaks, strict=True)
    ]
    moved = [
        (found - prior.mean) / prior.deviation
        for found, prior in zip(curve.coefficients, priors, strict=True)
    ]
    return sum(one**2 for one in (*away, *moved))


def _correction(
    curve: PeakCurve, points: Sequence[Point], peaks: Sequence[float], accumulates: bool
) -> Correction:
    alike = [
        (point.size, peak)
        for point, peak in zip(points, peaks, strict=True)
        if _accumulates(point) == accumulates
    ]
    return Correction.of(
        [size.num_tokens for size, _ in alike],
        [peak - curve.uncorrected(size, accumulates) for size, peak in alike],
    )
