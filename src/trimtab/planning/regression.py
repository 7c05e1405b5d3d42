"""A straight-line fit of few measurements, helped by what arithmetic expects.

Each coefficient has a prior, a normal distribution round its arithmetic value; the fit is the most
probable set of coefficients (Bayesian linear regression, which is least squares with one more row
for each prior). Measured points outweigh the priors as soon as they tell coefficients apart, so
that three or four steps fix what arithmetic gets wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Prior:
    """What a coefficient is expected to be, and how far from it it may well lie."""

    mean: float
    deviation: float


def solve(
    features: Sequence[Sequence[float]],
    values: Sequence[float],
    priors: Sequence[Prior],
    *,
    relative_noise: float,
) -> tuple[float, ...]:
    """The coefficients [F] of `features` [N, F] that give `values` [N], under `priors` [F].

    `relative_noise` is the deviation of a measured value as a share of it.
    """
    matrix, targets = np.asarray(features, dtype=float), np.asarray(values, dtype=float)
    point_weights = 1.0 / (relative_noise * targets)
    prior_weights = np.asarray([1.0 / prior.deviation for prior in priors])
    means = np.asarray([prior.mean for prior in priors])
    # Scaled by the deviations, so that bytes and bytes a token are of one size in the solver.
    left = np.vstack([matrix * point_weights[:, np.newaxis] / prior_weights, np.eye(len(priors))])
    right = np.concatenate([targets * point_weights, means * prior_weights])
    solved, *_ = np.linalg.lstsq(left, right, rcond=None)
    return tuple((solved / prior_weights).tolist())


@dataclass(frozen=True, slots=True)
class Correction:
    """What measured points were off a fit by, in a straight line between neighbouring points.

    Beyond the outermost points it stays what it is there. `positions` rise.
    """

    positions: tuple[float, ...]
    residuals: tuple[float, ...]

    @classmethod
    def of(cls, positions: Sequence[float], residuals: Sequence[float]) -> Correction:
        """`residuals` [N] at `positions` [N]; those at one position are averaged."""
        grouped: dict[float, list[float]] = {}
        for position, residual in sorted(zip(positions, residuals, strict=True)):
            grouped.setdefault(position, []).append(residual)
        return cls(tuple(grouped), tuple(sum(each) / len(each) for each in grouped.values()))

    def at(self, position: float) -> float:
        if not self.positions:
            return 0.0
        return float(np.interp(position, self.positions, self.residuals))

    def fading_at(self, position: float) -> float:
        """Beyond the last point, less in proportion to the distance from 0."""
        if not self.positions:
            return 0.0
        return min(1.0, self.positions[-1] / position) * self.at(position)


def root_mean_square(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
