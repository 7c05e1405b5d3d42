"""Two runs scored on the same rows: how far apart are they, and could that be the rows' doing?

Shapes: R rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """A run's loss minus the reference's, in nats per trainable token; negative is better.

    low, high: the interval over rows like these, at `LEVEL` where no other is asked for. A run's
    own noise, that of its seed, is not in it.
    """

    effect: float
    low: float
    high: float
    standard_error: float
    num_rows: int

    @property
    def is_within_noise(self) -> bool:
        return self.low <= 0 <= self.high

    @property
    def is_better(self) -> bool:
        return self.high < 0


def paired_difference(
    losses_R: Sequence[float],
    reference_R: Sequence[float],
    num_tokens_R: Sequence[int],
    *,
    level: float = LEVEL,
) -> PairedDifference:
    """Of losses in nats summed by row. Raises ValueError for fewer than two rows.

    A loss per token is a ratio of two sums over rows; its standard error is that of the linearised
    ratio (Cochran, Sampling Techniques, 1977, chapter 6), with Student's t for few rows.
    """
    differences = np.asarray(losses_R) - np.asarray(reference_R)
    tokens = np.asarray(num_tokens_R, dtype=np.float64)
    number = len(differences)
    if number < 2:
        raise ValueError(f"{number} rows give no interval")
    effect = float(differences.sum() / tokens.sum())
    residuals = differences - effect * tokens
    error = math.sqrt(number * float((residuals**2).sum()) / (number - 1)) / float(tokens.sum())
    half = float(t.ppf((1 + level) / 2, number - 1)) * error
    return PairedDifference(effect, effect - half, effect + half, error, number)
