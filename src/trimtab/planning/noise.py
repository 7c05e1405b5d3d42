"""The gradient noise scale of a run, from gradient norms at two batch sizes.

The mean gradient of B examples has E|G_B|² = |G|² + tr(Σ) ÷ B, where G is the true gradient and Σ
the covariance of one example's. Norms at two sizes b < B of the same weights give both unknowns,
and their ratio is the noise scale tr(Σ) ÷ |G|²: the batch, in examples, above which doubling it
saves less than half of the updates (An Empirical Model of Large-Batch Training, 2018, arXiv
1812.06162, appendix A.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.planning.fact import Fact

MIN_UPDATES = 20
INTERVAL = 0.9
NUM_RESAMPLES = 1000
SEED = 0


@dataclass(frozen=True, slots=True)
class GradientNorms:
    """Norms of one update's mean gradient over its first examples and over all of them."""

    num_first_examples: int
    num_examples: int
    first_norm: float
    norm: float


@dataclass(frozen=True, slots=True)
class NoiseScale:
    """In examples, with the ends of a 90% bootstrap interval over the updates."""

    examples: float
    low_examples: float
    high_examples: float
    num_updates: int


def noise_scale(updates: Sequence[GradientNorms]) -> NoiseScale | None:
    """The ratio of the means over the updates; a mean of their ratios would be biased.

    A run's gradients shrink and turn while it learns, so this is the scale of the run as a whole.
    None where it is not identified: fewer than 20 updates, or an interval of |G|² that includes 0.
    A negative tr(Σ), which chance can give where there is little noise, counts as 0.
    """
    import numpy as np

    if len(updates) < MIN_UPDATES:
        return None
    small = np.array([update.num_first_examples for update in updates], dtype=float)
    large = np.array([update.num_examples for update in updates], dtype=float)
    small_squared = np.array([update.first_norm for update in updates]) ** 2
    large_squared = np.array([update.norm for update in updates]) ** 2
    signals = (large * large_squared - small * small_squared) / (large - small)
    noises = (small_squared - large_squared) / (1 / small - 1 / large)

    generator = np.random.Generator(np.random.PCG64(SEED))
    signal_means, noise_means = np.empty(NUM_RESAMPLES), np.empty(NUM_RESAMPLES)
    for index in range(NUM_RESAMPLES):
        drawn = generator.integers(len(updates), size=len(updates))
        signal_means[index] = signals[drawn].mean()
        noise_means[index] = noises[drawn].mean()
    tail = (1 - INTERVAL) / 2
    if signals.mean() <= 0 or np.quantile(signal_means, tail) <= 0:
        return None
    is_positive = signal_means > 0
    ratios = np.where(is_positive, noise_means / np.where(is_positive, signal_means, 1.0), np.inf)
    # "lower" and "higher" name a resample: between a number and infinity there is no point.
    low = float(np.quantile(ratios, tail, method="higher"))
    high = float(np.quantile(ratios, 1 - tail, method="lower"))
    examples = float(noises.mean() / signals.mean())
    return NoiseScale(max(0.0, examples), max(0.0, low), max(0.0, high), len(updates))


def noise_facts(scale: NoiseScale) -> tuple[Fact, ...]:
    """`noise.scale_examples` with its interval and the updates that it comes from."""
    method = (
        "ratio of means over a run's updates, from the gradient norms of the first micro-batch "
        "and of the whole update (2018, arXiv 1812.06162); 90% bootstrap interval"
    )
    values = {
        "noise.scale_examples": scale.examples,
        "noise.low_examples": scale.low_examples,
        "noise.high_examples": scale.high_examples,
    }
    return (
        *(Fact(id, value, "examples", method=method) for id, value in values.items()),
        Fact("noise.num_updates", scale.num_updates, "updates", method=method),
    )
