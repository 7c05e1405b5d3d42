"""Which settings are the best one, and which could be, given what finished runs came to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from trimtab.search.proposing import away_from
from trimtab.search.surrogate import DEFAULT, Array, Surrogate

LEVEL = 0.9
NUM_DRAWS = 1000
NUM_ON_A_LINE = 101
LOG2_NUM_IN_A_BOX = 8
JUDGING = replace(DEFAULT, distrust=0.0)
"""A run far above the best says as much as any here: of what was chosen the regret was a seventh
less than of the lowest loss, with the search's distrust a tenth (the tuning half of
benchmarks/search.py, with one seed's noise)."""
EDGE = 1.1
"""Points are spread a little past the box and put back, so that its faces have some too."""


@dataclass(frozen=True)
class Region:
    """A box, scaled to [-1, 1], that holds the best setting with the probability `LEVEL`.

    best_D: where the posterior mean is lowest inside the space. Shapes (D,).
    """

    low_D: Array
    high_D: Array
    best_D: Array


def best_of_equal(
    points_ND: Array, losses_N: Array, is_equal_N: NDArray[np.bool_], *, loss_sd: float
) -> int:
    """The place of the run at which the posterior mean is lowest, of those that are equal to the
    lowest loss: that loss itself is the luckiest of them.

    `loss_sd` is the noise of one run's loss, in the losses' unit. Raises ValueError where no loss
    is finite.
    """
    surrogate = Surrogate.of(points_ND, losses_N, loss_sd=loss_sd, constants=JUDGING)
    mean_N, _ = surrogate.marginal(points_ND)
    return int(np.argmin(np.where(is_equal_N, mean_N, np.inf)))


def best_region(
    points_ND: Array,
    losses_N: Array,
    *,
    loss_sd: float,
    seed: int = 0,
) -> Region:
    """Draws whole loss curves from the posterior and takes the bounds of where they are lowest,
    widened to the next settings that were tried.

    `loss_sd` is the standard deviation of one run's loss over seeds, in the losses' unit. Raises
    ValueError where no loss is finite.
    """
    num_dimensions = points_ND.shape[1]
    lowest_KD, best_D = lowest_points(points_ND, losses_N, loss_sd=loss_sd, seed=seed)
    outside = (1 - LEVEL) / (2 * num_dimensions)
    low_D, high_D = np.quantile(lowest_KD, [outside, 1 - outside], axis=0)
    return Region(
        np.array([_at_or_below(low, points_ND[:, axis]) for axis, low in enumerate(low_D)]),
        np.array([_at_or_above(high, points_ND[:, axis]) for axis, high in enumerate(high_D)]),
        best_D,
    )


def lowest_points(
    points_ND: Array,
    losses_N: Array,
    *,
    loss_sd: float,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Where each of K curves drawn from the posterior is lowest, (K, D), and where its mean is.

    Not where the nearest run diverged: nothing good is expected there, nor beyond it. Raises
    ValueError where no loss is finite.
    """
    rng = np.random.default_rng(seed)
    surrogate = Surrogate.of(points_ND, losses_N, loss_sd=loss_sd)
    is_finite_N = np.isfinite(losses_N)
    grid_AD = _grid(points_ND.shape[1], seed)
    safe_AD = away_from(grid_AD, points_ND[~is_finite_N], points_ND[is_finite_N])
    at_AD = safe_AD if len(safe_AD) else points_ND[is_finite_N]
    mean_A, covariance_AA = surrogate.joint(at_AD)
    eigenvalues, eigenvectors = np.linalg.eigh(covariance_AA)
    factor_AA = eigenvectors * np.sqrt(np.maximum(eigenvalues, 0))
    drawn_KA = mean_A + rng.normal(size=(NUM_DRAWS, len(at_AD))) @ factor_AA.T
    return at_AD[np.argmin(drawn_KA, axis=1)], at_AD[np.argmin(mean_A)]


def _at_or_below(bound: float, tried_N: Array) -> float:
    """Between two settings that were tried, nothing is known so well that it could be a bound."""
    return float(tried_N[tried_N <= bound].max(initial=-1.0))


def _at_or_above(bound: float, tried_N: Array) -> float:
    return float(tried_N[tried_N >= bound].min(initial=1.0))


def _grid(num_dimensions: int, seed: int) -> Array:
    if num_dimensions == 1:
        line: Array = np.linspace(-1, 1, NUM_ON_A_LINE)[:, None]
        return line
    sobol = qmc.Sobol(num_dimensions, rng=np.random.default_rng(seed))
    spread: Array = np.clip(EDGE * (2 * sobol.random_base2(LOG2_NUM_IN_A_BOX) - 1), -1, 1)
    return spread
