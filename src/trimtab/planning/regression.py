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


@dataclass(frozen=True, slots=True)
class Fit:
    """`value` of features is coefficients · features, moved by what nearby points were off by.

    positions, residuals: by rising position, the points' own, for one repeat; `position` of a
    prediction is in the same measure. relative_residual: the root mean square of the straight
    line's relative errors.
    """

    coefficients: tuple[float, ...]
    positions: tuple[float, ...]
    residuals: tuple[float, ...]
    relative_residual: float

    def line(self, features: Sequence[float]) -> float:
        return float(np.dot(self.coefficients, features))

    def value(self, features: Sequence[float], position: float, num_repeats: float = 1.0) -> float:
        correction = float(np.interp(position, self.positions, self.residuals))
        return self.line(features) + num_repeats * correction


def fit(
    features: Sequence[Sequence[float]],
    values: Sequence[float],
    priors: Sequence[Prior],
    *,
    relative_noise: float,
    positions: Sequence[float],
    repeats: Sequence[float] | None = None,
) -> Fit:
    """Fit `values` [N] to `features` [N, F] under `priors` [F].

    `relative_noise` is the deviation of a measured value as a share of it. `positions` [N] order
    the points for the correction between them; equal ones are averaged. `repeats` [N] says how
    often each value repeats what stands at its position (once, where it is left out).
    """
    matrix, targets = np.asarray(features, dtype=float), np.asarray(values, dtype=float)
    point_weights = 1.0 / (relative_noise * targets)
    prior_weights = np.asarray([1.0 / prior.deviation for prior in priors])
    means = np.asarray([prior.mean for prior in priors])
    # Scaled by the deviations, so that bytes and bytes a token are of one size in the solver.
    left = np.vstack([matrix * point_weights[:, np.newaxis] / prior_weights, np.eye(len(priors))])
    right = np.concatenate([targets * point_weights, means * prior_weights])
    solved, *_ = np.linalg.lstsq(left, right, rcond=None)
    coefficients = solved / prior_weights
    residuals = targets - matrix @ coefficients
    per_repeat = residuals / (np.ones(len(targets)) if repeats is None else np.asarray(repeats))
    by_position: dict[float, list[float]] = {}
    for position, residual in sorted(zip(positions, per_repeat.tolist(), strict=True)):
        by_position.setdefault(position, []).append(residual)
    return Fit(
        coefficients=tuple(coefficients.tolist()),
        positions=tuple(by_position),
        residuals=tuple(sum(each) / len(each) for each in by_position.values()),
        relative_residual=float(np.sqrt(np.mean((residuals / targets) ** 2))),
    )
