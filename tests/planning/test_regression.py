from __future__ import annotations

import pytest

from trimtab.planning.regression import Correction, Prior, root_mean_square, solve

LOOSE = (Prior(0.0, 1e6), Prior(0.0, 1e6))


def test_points_outweigh_loose_priors() -> None:
    xs = [10.0, 20.0, 40.0]
    found = solve([(1.0, x) for x in xs], [100 + 3 * x for x in xs], LOOSE, relative_noise=0.01)
    assert found == pytest.approx((100, 3), rel=1e-6)


def test_a_prior_decides_what_points_cannot_tell() -> None:
    priors = (Prior(90.0, 1e-3), Prior(5.0, 100.0))
    found = solve([(1.0, 10.0)], [130.0], priors, relative_noise=0.001)
    assert found == pytest.approx((90, 4), rel=1e-3)


def test_a_tight_prior_holds_against_a_noisy_point() -> None:
    priors = (Prior(90.0, 1e-3), Prior(5.0, 1e-3))
    found = solve([(1.0, 10.0)], [130.0], priors, relative_noise=0.5)
    assert found == pytest.approx((90, 5), rel=1e-3)


def test_corrections_lie_between_neighbours_and_stay_or_fade_beyond_them() -> None:
    correction = Correction.of([30.0, 10.0, 10.0], [6.0, 1.0, 3.0])
    assert [correction.at(x) for x in (1, 10, 20, 30, 60, 90)] == [2, 2, 4, 6, 6, 6]
    assert [correction.fading_at(x) for x in (1, 10, 20, 30, 60, 90)] == [2, 2, 4, 6, 3, 2]
    nothing = Correction.of([], [])
    assert (nothing.at(5.0), nothing.fading_at(5.0)) == (0, 0)


def test_root_mean_square() -> None:
    assert root_mean_square([3.0, -4.0]) == pytest.approx(12.5**0.5)
