"""Where to run next, given what finished runs came to.

Points are scaled to [-1, 1]: N finished runs, P runs under way, M candidates, D hyperparameters.
"""

from __future__ import annotations

import numpy as np

from trimtab.search.surrogate import DEFAULT, Array, Constants, Surrogate

NUM_WIDE = 512
FANNED_APART = 0.75
"""In steps: how near runs may lie that are begun before any has come to an end."""
NEARBY = ((0.2, 256), (0.05, 128))
"""Standard deviations around the best run, with the number of candidates drawn at each."""


def propose(
    points_ND: Array,
    losses_N: Array,
    pending_PD: Array,
    rng: np.random.Generator,
    constants: Constants = DEFAULT,
    min_distance: float = 0.0,
) -> Array:
    """The next point, of shape (D,). Losses are infinite where a run came to none.

    The middle first; then a step along each hyperparameter from the best so far; then the lowest
    lower confidence bound in the trust region, no nearer to any run than `min_distance` where the
    region has room. Runs under way are taken to come out as predicted; where none has come to an
    end, the next one is as many steps from the first as others leave it.
    """
    num_dimensions = points_ND.shape[1]
    is_finite_N = np.isfinite(losses_N)
    started_SD = np.vstack([points_ND, pending_PD])
    if len(started_SD) == 0:
        return np.zeros(num_dimensions)
    if len(points_ND) and not is_finite_N.any():
        return _farthest(started_SD, rng)
    best_D = points_ND[np.argmin(losses_N)] if len(points_ND) else started_SD[0]
    if len(started_SD) <= num_dimensions:
        return _step(best_D, len(started_SD) - 1, constants.step, rng)
    if not len(points_ND):
        return _fanned(started_SD, constants.step, rng)
    surrogate = Surrogate.of(points_ND, losses_N, constants=constants)
    if len(pending_PD):
        surrogate = surrogate.believing(pending_PD)
    candidates_MD = _candidates(best_D, rng, constants.trust_radius)
    candidates_MD = away_from(candidates_MD, points_ND[~is_finite_N], points_ND[is_finite_N])
    is_apart_M = _distances(candidates_MD, started_SD).min(axis=1) >= min_distance
    if is_apart_M.any():
        candidates_MD = candidates_MD[is_apart_M]
    mean_M, sd_M = surrogate.marginal(candidates_MD)
    chosen: Array = candidates_MD[np.argmin(mean_M - constants.exploration * sd_M)]
    return chosen


def _step(from_D: Array, axis: int, step: float, rng: np.random.Generator) -> Array:
    """A step along one axis, up or down, to the side that has room for it."""
    sides = [side for side in (-step, step) if -1 <= from_D[axis] + side <= 1]
    stepped = from_D.copy()
    stepped[axis] += sides[rng.integers(len(sides))]
    return stepped


def _fanned(started_SD: Array, step: float, rng: np.random.Generator) -> Array:
    """The fewest steps from the first run, along one axis, to where no other run is near."""
    num_dimensions = started_SD.shape[1]
    steps = [side * number * step for number in range(1, int(2 / step) + 1) for side in (-1, 1)]
    away_MD = np.array(
        [started_SD[0] + by * axis_D for by in steps for axis_D in np.eye(num_dimensions)]
    )
    is_inside_M = (np.abs(away_MD) <= 1).all(axis=1)
    is_apart_M = _distances(away_MD, started_SD).min(axis=1) >= FANNED_APART * step
    fanned_MD = away_MD[is_inside_M & is_apart_M]
    if not len(fanned_MD):
        return _farthest(started_SD, rng)
    nearest: Array = fanned_MD[np.argmin(_distances(fanned_MD, started_SD[:1])[:, 0].round(6))]
    return nearest


def _farthest(started_SD: Array, rng: np.random.Generator) -> Array:
    """A point far from every run, where nothing is known but that they failed."""
    wide_MD = rng.uniform(-1, 1, (NUM_WIDE, started_SD.shape[1]))
    farthest: Array = wide_MD[np.argmax(_distances(wide_MD, started_SD).min(axis=1))]
    return farthest


def _candidates(best_D: Array, rng: np.random.Generator, trust_radius: float) -> Array:
    """Points of the space no farther from the best run on any axis than the trust region's half."""
    low_D = np.maximum(best_D - trust_radius, -1)
    high_D = np.minimum(best_D + trust_radius, 1)
    drawn = [best_D[None, :], rng.uniform(low_D, high_D, (NUM_WIDE, len(best_D)))]
    drawn += [best_D + rng.normal(0, sd, (number, len(best_D))) for sd, number in NEARBY]
    clipped: Array = np.clip(np.vstack(drawn), low_D, high_D)
    return clipped


def away_from(candidates_MD: Array, diverged_KD: Array, finite_ND: Array) -> Array:
    """The candidates that lie no farther from a run that came to a loss than from one that did
    not: values of which one run failed and another did not are sound."""
    if not len(diverged_KD):
        return candidates_MD
    is_safe_M = _distances(candidates_MD, finite_ND).min(axis=1) <= _distances(
        candidates_MD, diverged_KD
    ).min(axis=1)
    safe: Array = candidates_MD[is_safe_M]
    return safe


def _distances(a_AD: Array, b_BD: Array) -> Array:
    distances: Array = np.linalg.norm(a_AD[:, None, :] - b_BD[None, :, :], axis=2)
    return distances
