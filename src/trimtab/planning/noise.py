"""The gradient noise scale of a run, from gradient norms at two batch sizes.

The mean gradient of B examples has E|G_B|² = |G|² + tr(Σ) ÷ B, where G is the true gradient and Σ
the covariance of one example's. Norms at two sizes b < B of the same weights give both unknowns,
and their ratio is the noise scale tr(Σ) ÷ |G|²: the batch, in examples, above which doubling it
saves less than half of the updates (An Empirical Model of Large-Batch Training, 2018, arXiv
1812.06162, appendix A.1).

Where all micro-batches of an update are known, so is the mean product of two different ones, whose
expectation is |G|² itself: the noise of each cancels, which the norms of one micro-batch and of the
whole leave in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.planning.fact import Fact

MIN_UPDATES = 20
INTERVAL = 0.9
NUM_RESAMPLES = 1000
SEED = 0
PROBED_EXAMPLES = 8
"""Of an update whose gradient is probed before training."""
OVER_A_RUN = (
    "ratio of means over a run's updates, from the gradient norms of the first micro-batch "
    "and of the whole update (2018, arXiv 1812.06162); 90% bootstrap interval"
)
AT_BASE_WEIGHTS = (
    "ratio of means over updates at the base weights, none of them applied, from the gradient "
    "norms of each micro-batch and of the whole update (2018, arXiv 1812.06162); 90% bootstrap "
    "interval"
)


@dataclass(frozen=True, slots=True)
class GradientNorms:
    """Norms of one update's mean gradient over its first examples and over all of them."""

    num_first_examples: int
    num_examples: int
    first_norm: float
    norm: float

    @property
    def squared_signal(self) -> float:
        """An unbiased estimate of |G|²; it may be negative."""
        small, large = self.num_first_examples, self.num_examples
        return (large * self.norm**2 - small * self.first_norm**2) / (large - small)

    @property
    def noise_trace(self) -> float:
        """An unbiased estimate of tr(Σ); it may be negative."""
        return (self.first_norm**2 - self.norm**2) / (
            1 / self.num_first_examples - 1 / self.num_examples
        )


@dataclass(frozen=True, slots=True)
class MicroBatchNorms:
    """Norms of an update's mean gradient and of those of all its micro-batches, two or more.

    shares: of the update's trainable tokens, by micro-batch; they add up to 1.
    """

    num_examples: int
    shares: Sequence[float]
    norms: Sequence[float]
    norm: float

    @property
    def squared_signal(self) -> float:
        """The mean product of two micro-batches' gradients, weighted as the update weights them."""
        own = sum((share * norm) ** 2 for share, norm in zip(self.shares, self.norms, strict=True))
        return (self.norm**2 - own) / (1 - sum(share**2 for share in self.shares))

    @property
    def noise_trace(self) -> float:
        """Of examples whose noise a batch of so many averages to what this update has."""
        return self.num_examples * (self.norm**2 - self.squared_signal)


@dataclass(frozen=True, slots=True)
class NoiseScale:
    """In examples, with the ends of a 90% bootstrap interval over the updates."""

    examples: float
    low_examples: float
    high_examples: float
    num_updates: int


def noise_scale(updates: Sequence[GradientNorms | MicroBatchNorms]) -> NoiseScale | None:
    """The ratio of the means over the updates; a mean of their ratios would be biased.

    A run's gradients shrink and turn while it learns, so this is the scale of the run as a whole.
    None where it is not identified: fewer than 20 updates, or an interval of |G|² that includes 0.
    A negative tr(Σ), which chance can give where there is little noise, counts as 0.
    """
    import numpy as np

    if len(updates) < MIN_UPDATES:
        return None
    signals = np.array([update.squared_signal for update in updates])
    noises = np.array([update.noise_trace for update in updates])

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


def noise_facts(scale: NoiseScale, method: str) -> tuple[Fact, ...]:
    """`noise.scale_examples` with its interval and the updates that it comes from."""
    values = {
        "noise.scale_examples": scale.examples,
        "noise.low_examples": scale.low_examples,
        "noise.high_examples": scale.high_examples,
    }
    return (
        *(Fact(id, value, "examples", method=method) for id, value in values.items()),
        Fact("noise.num_updates", scale.num_updates, "updates", method=method),
    )
