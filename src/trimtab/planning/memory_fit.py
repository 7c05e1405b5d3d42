"""Peak memory as real steps show it: a + a'·accumulation + c₁·tokens + c₃·scored + c₂·Σ length².

Each checkpointing that was measured has a fit of its own, since what an allocator wastes differs
with what is kept; one that was not lies between its measured neighbours by the share of layers
that recompute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab.planning.fact import Facts
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.regression import Fit, Prior, fit
from trimtab.planning.rules.memory import (
    Checkpointing,
    MemoryArithmetic,
    num_recomputing_layers,
)
from trimtab.planning.trials import Point, by_checkpointing, measured_points

RELATIVE_NOISE = 0.01
"""Two processes that do the same differ by about this much in their resident sets."""
HEAD_SIZE = 64
SCORE_SHARE = 0.1
"""The prior width of Σ length²: a tenth of attention that keeps every score in fp32."""


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """floor_bytes: the peak of loading the model, below which no update's peak can be."""

    arithmetic: MemoryArithmetic
    fits: Mapping[Checkpointing, Fit]
    floor_bytes: int
    relative_residual: float

    def peak_bytes(
        self, size: MicroBatchSize, checkpointing: Checkpointing, *, accumulates: bool
    ) -> int:
        """The predicted peak of updates whose largest micro-batch is of `size`."""
        features = _features(size, accumulates)
        if checkpointing in self.fits:
            peak = self.fits[checkpointing].value(features, size.num_tokens)
        else:
            peak = self._between(features, size, checkpointing)
        return max(self.floor_bytes, round(peak))

    def _between(
        self, features: tuple[float, ...], size: MicroBatchSize, checkpointing: Checkpointing
    ) -> float:
        num_layers = self.arithmetic.num_layers
        wanted = num_recomputing_layers(num_layers, checkpointing)
        known = sorted(
            (num_recomputing_layers(num_layers, each), found.value(features, size.num_tokens))
            for each, found in self.fits.items()
        )
        (low, low_peak), (high, high_peak) = known[0], known[-1]
        if low == high:
            measured = next(iter(self.fits))
            change = self.arithmetic.peak_bytes(size, checkpointing) - self.arithmetic.peak_bytes(
                size, measured
            )
            return low_peak + change
        return low_peak + (high_peak - low_peak) * (wanted - low) / (high - low)


def fit_memory(facts: Facts, arithmetic: MemoryArithmetic) -> MemoryFit | None:
    """The fit to the facts of the trials, moved to the planning process; None without any."""
    grouped = by_checkpointing(measured_points(facts))
    if not grouped:
        return None
    moved = facts.integer("trials.process_bytes") - facts.integer("trials.base_bytes")
    fits = {
        checkpointing: _fit(points, moved, arithmetic, checkpointing, facts)
        for checkpointing, points in grouped.items()
    }
    return MemoryFit(
        arithmetic=arithmetic,
        fits=fits,
        floor_bytes=facts.integer("trials.loaded_bytes") + moved,
        relative_residual=max(each.relative_residual for each in fits.values()),
    )


def _features(size: MicroBatchSize, accumulates: bool) -> tuple[float, ...]:
    return (1.0, float(accumulates), size.num_tokens, size.num_scored, size.sum_length_squared)


def _fit(
    points: list[Point],
    moved_bytes: int,
    arithmetic: MemoryArithmetic,
    checkpointing: Checkpointing,
    facts: Facts,
) -> Fit:
    num_recomputing = num_recomputing_layers(arithmetic.num_layers, checkpointing)
    num_keeping = arithmetic.num_layers - num_recomputing + 1
    num_heads = max(1, facts.integer("model.hidden_size") // HEAD_SIZE)
    kept_bytes_per_token = arithmetic.bytes_per_token("off")
    logits = arithmetic.logits_bytes_per_position
    priors = (
        Prior(arithmetic.fixed_bytes, arithmetic.fixed_bytes / 2),
        # Gradients that stand while the next micro-batch runs, and what they break up.
        Prior(0.0, arithmetic.gradient_bytes / 2 + arithmetic.fixed_bytes / 4),
        # An allocator can waste half of what a step without checkpointing would keep.
        Prior(arithmetic.bytes_per_token(checkpointing), kept_bytes_per_token / 2),
        Prior(logits, logits / 10),
        Prior(0.0, SCORE_SHARE * 4 * num_heads * num_keeping),
    )
    return fit(
        [_features(point.size, point.trial.num_micro_batches > 1) for point in points],
        [float(point.peak_bytes or 0) + moved_bytes for point in points],
        priors,
        relative_noise=RELATIVE_NOISE,
        positions=[point.size.num_tokens for point in points],
    )
