from __future__ import annotations

import numpy as np
import pytest

from trimtab.search.region import best_region
from trimtab.search.surrogate import Surrogate, Warp

LINE = np.array([[-0.5], [0.0], [0.5], [0.2], [0.3], [-0.2]])


def test_the_region_holds_the_best_and_narrows_with_less_noise() -> None:
    losses = 2 + (LINE[:, 0] - 0.2) ** 2
    sure = best_region(LINE, losses, loss_sd=1e-4)
    unsure = best_region(LINE, losses, loss_sd=0.3)
    assert sure.low_D[0] <= 0.2 <= sure.high_D[0]
    assert sure.high_D[0] - sure.low_D[0] < unsure.high_D[0] - unsure.low_D[0]
    assert sure.best_D[0] == pytest.approx(0.2, abs=0.06)


def test_bounds_are_settings_that_were_tried_or_the_ends_of_the_range() -> None:
    region = best_region(LINE, 2 + LINE[:, 0] ** 2, loss_sd=0.01)
    assert {float(region.low_D[0]), float(region.high_D[0])} <= {-1.0, 1.0, *LINE[:, 0]}


def test_a_region_of_two_hyperparameters_is_a_box() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (12, 2))
    region = best_region(points, ((points - [0.3, -0.4]) ** 2).sum(1), loss_sd=1e-3)
    assert (region.low_D <= [0.3, -0.4]).all()
    assert (region.high_D >= [0.3, -0.4]).all()


def test_a_diverged_run_lies_over_the_worst_finite_one() -> None:
    losses = np.array([1.0, 3.0, np.inf, 2.0])
    targets = Warp.of(losses).warped(losses)
    assert targets[0] == 0
    assert targets[2] > targets[1] > targets[3] > 0


def test_nothing_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="no run has a finite loss"):
        Warp.of(np.array([np.inf, np.nan]))


def test_what_is_believed_of_a_run_under_way_leaves_the_mean_and_takes_the_doubt() -> None:
    surrogate = Surrogate.of(LINE, 2 + LINE[:, 0] ** 2)
    at = np.array([[0.8]])
    mean, sd = surrogate.marginal(at)
    believed_mean, believed_sd = surrogate.believing(at).marginal(at)
    assert believed_mean == pytest.approx(mean)
    assert believed_sd < 0.2 * sd


@pytest.mark.parametrize("side", [-1, 1])
def test_no_best_is_looked_for_where_the_nearest_run_diverged(side: int) -> None:
    """A search from a rate that diverged in the middle of its range: nothing better lies above."""
    points = side * np.array([[0.0], [-0.5], [-0.9], [-0.8], [-0.7]])
    losses = np.array([np.inf, 0.8817, 0.7395, 0.7576, 0.7857])
    region = best_region(points, losses, loss_sd=0.006)
    ends = sorted((side * region.low_D[0], side * region.high_D[0]))
    assert ends[1] <= 0.0
    assert ends[0] <= -0.9


def test_a_region_beside_a_run_that_diverged_next_to_it_is_still_one() -> None:
    points = np.array([[0.301], [0.303], [0.3]])
    losses = np.array([1.0, np.inf, np.inf])
    region = best_region(points, losses, loss_sd=0.01)
    assert region.low_D[0] <= 0.301 <= region.high_D[0]
