"""A quadratic in the logarithms with a smooth residual: what few runs say about all settings.

Points are scaled to [-1, 1] on every axis: N runs, A and B any points, D hyperparameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

JITTER = 1e-8


@dataclass(frozen=True, slots=True)
class Constants:
    """Chosen on half of the landscapes of benchmarks/search.py, and scored on the other half.

    Standard deviations are those of the prior, in units of the warped loss, in which runs differ by
    about one, over half a range. Curvatures have a positive mean: losses rise on both sides of a
    best value. `distrust` is noise in proportion to a run's warped loss: a run far above the best
    says little of the basin's shape. `divergence_step` is how far over the worst finite run one
    that diverged is taken to lie. `step` and `trust_radius` are in halves of the range.
    """

    level_sd: float = 3.0
    slope_sd: float = 2.0
    curvature_mean: float = 2.0
    curvature_sd: float = 2.0
    cross_sd: float = 0.5
    residual_sd: float = 0.5
    residual_length: float = 0.35
    noise_sd: float = 0.05
    distrust: float = 0.3
    divergence_step: float = 2.0
    exploration: float = 1.0
    step: float = 0.3
    trust_radius: float = 0.4


DEFAULT = Constants()


@dataclass(frozen=True, slots=True)
class Warp:
    """Losses as logarithms of their distance from the best one, in units of the median distance.

    The same for losses in any unit, and without the walls that rates near divergence put up.
    """

    best: float
    scale: float

    @classmethod
    def of(cls, losses_N: Array) -> Warp:
        """Raises ValueError where no loss is finite."""
        finite = losses_N[np.isfinite(losses_N)]
        if not len(finite):
            raise ValueError("no run has a finite loss")
        best = float(finite.min())
        above = finite[finite > best] - best
        return cls(best, float(np.median(above)) if len(above) else 1.0)

    def warped(self, losses_N: Array, constants: Constants = DEFAULT) -> Array:
        """Targets (N,); a loss that is not finite lies a step over the worst finite one."""
        is_finite = np.isfinite(losses_N)
        finite = np.where(is_finite, losses_N, self.best)
        bent = np.log1p((finite - self.best) / self.scale)
        return np.where(is_finite, bent, bent.max() + constants.divergence_step)

    def sd(self, losses_N: Array, loss_sd: float) -> Array:
        """A standard deviation of the losses, by run, as one of the targets."""
        finite = np.where(np.isfinite(losses_N), losses_N, np.inf)
        return loss_sd / (self.scale + finite - self.best)


@dataclass(frozen=True)
class Surrogate:
    """The posterior of the warped loss given runs; `noise_N` are their standard deviations."""

    points_ND: Array
    targets_N: Array
    noise_N: Array
    constants: Constants = DEFAULT

    @classmethod
    def of(
        cls,
        points_ND: Array,
        losses_N: Array,
        *,
        loss_sd: float = 0.0,
        constants: Constants = DEFAULT,
    ) -> Surrogate:
        """`loss_sd` is a run's noise in the losses' unit, where it was measured."""
        warp = Warp.of(losses_N)
        targets_N = warp.warped(losses_N, constants)
        noise_N = np.hypot(constants.noise_sd, warp.sd(losses_N, loss_sd))
        return cls(points_ND, targets_N, noise_N + constants.distrust * targets_N, constants)

    def believing(self, pending_PD: Array) -> Surrogate:
        """As if runs under way had come out as predicted."""
        predicted_P, _ = self.marginal(pending_PD)
        noise_P = np.full(len(pending_PD), self.constants.noise_sd)
        return Surrogate(
            np.vstack([self.points_ND, pending_PD]),
            np.append(self.targets_N, predicted_P),
            np.append(self.noise_N, noise_P),
            self.constants,
        )

    def marginal(self, at_AD: Array) -> tuple[Array, Array]:
        """Means and standard deviations without noise, each of shape (A,)."""
        mean_A, gain_AN, cross_AN = self._conditioned(at_AD)
        prior_A = (self._scaled_features(at_AD) ** 2).sum(axis=1) + self.constants.residual_sd**2
        variance_A = prior_A - (gain_AN * cross_AN).sum(axis=1)
        return mean_A, np.sqrt(np.maximum(variance_A, 0))

    def joint(self, at_AD: Array) -> tuple[Array, Array]:
        """Means (A,) and their covariance (A, A), without noise."""
        mean_A, gain_AN, cross_AN = self._conditioned(at_AD)
        return mean_A, self._covariance(at_AD, at_AD) - gain_AN @ cross_AN.T

    def _conditioned(self, at_AD: Array) -> tuple[Array, Array, Array]:
        kernel_NN = self._covariance(self.points_ND, self.points_ND)
        kernel_NN[np.diag_indices_from(kernel_NN)] += self.noise_N**2 + JITTER
        cross_AN = self._covariance(at_AD, self.points_ND)
        gain_AN = np.asarray(np.linalg.solve(kernel_NN, cross_AN.T).T, dtype=np.float64)
        excess_N = self.targets_N - self._prior_mean(self.points_ND)
        mean_A: Array = self._prior_mean(at_AD) + gain_AN @ excess_N
        return mean_A, gain_AN, cross_AN

    def _prior_mean(self, at_AD: Array) -> Array:
        mean: Array = self.constants.curvature_mean * (at_AD**2).sum(axis=1)
        return mean

    def _covariance(self, a_AD: Array, b_BD: Array) -> Array:
        trend: Array = self._scaled_features(a_AD) @ self._scaled_features(b_BD).T
        squared_AB = ((a_AD[:, None, :] - b_BD[None, :, :]) ** 2).sum(axis=2)
        length, sd = self.constants.residual_length, self.constants.residual_sd
        residual: Array = sd**2 * np.exp(-squared_AB / (2 * length**2))
        return trend + residual

    def _scaled_features(self, at_AD: Array) -> Array:
        """1, coordinates, squares, products; each times its coefficient's prior deviation."""
        c = self.constants
        first, second = np.triu_indices(at_AD.shape[1], k=1)
        return np.hstack(
            [
                np.full((len(at_AD), 1), c.level_sd),
                c.slope_sd * at_AD,
                c.curvature_sd * at_AD**2,
                c.cross_sd * at_AD[:, first] * at_AD[:, second],
            ]
        )
