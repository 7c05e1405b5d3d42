from __future__ import annotations

import pytest

from trimtab.planning.regression import Prior, fit

LOOSE = (Prior(0.0, 1e6), Prior(0.0, 1e6))


def line(x: float) -> float:
    return 100 + 3 * x


def test_points_outweigh_loose_priors() -> None:
    xs = [10.0, 20.0, 40.0]
    found = fit(
        [(1.0, x) for x in xs], [line(x) for x in xs], LOOSE, relative_noise=0.01, positions=xs
    )
    assert found.coefficients == pytest.approx((100, 3), rel=1e-6)
    assert found.relative_residual == pytest.approx(0, abs=1e-9)
    assert found.value((1.0, 80.0), 80.0) == pytest.approx(line(80), rel=1e-6)


def test_a_prior_decides_what_points_cannot_tell() -> None:
    priors = (Prior(90.0, 1e-3), Prior(5.0, 100.0))
    found = fit([(1.0, 10.0)], [130.0], priors, relative_noise=0.001, positions=[10.0])
    assert found.coefficients == pytest.approx((90, 4), rel=1e-3)


def test_what_is_measured_is_given_back_and_the_line_goes_on_beyond() -> None:
    xs, ys = [10.0, 20.0, 30.0], [130.0, 175.0, 190.0]
    found = fit([(1.0, x) for x in xs], ys, LOOSE, relative_noise=0.01, positions=xs)
    assert [found.value((1.0, x), x) for x in xs] == pytest.approx(ys)
    assert found.relative_residual > 0.01
    beyond = found.value((1.0, 1000.0), 1000.0) - found.value((1.0, 999.0), 999.0)
    assert beyond == pytest.approx(found.coefficients[1])


def test_points_at_one_position_are_averaged_and_repeats_divided() -> None:
    features = [(1.0, 1.0), (1.0, 2.0)]
    tight = (Prior(0.0, 1e-6), Prior(10.0, 1e-6))
    found = fit(
        features, [14.0, 24.0], tight, relative_noise=0.01, positions=[5.0, 5.0], repeats=[1, 2]
    )
    # 4 over for one, 4 over for two: 4 and 2 for each repeat.
    assert found.residuals == pytest.approx((3.0,), rel=1e-3)
    assert found.value((1.0, 3.0), 5.0, 3.0) == pytest.approx(30 + 3 * 3, rel=1e-3)
