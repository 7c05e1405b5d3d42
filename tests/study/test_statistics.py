"""Intervals by hand, verdicts by table, and how often a study is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from trimtab.study.statistics import ALPHA, Comparison, compare, seeds_needed, t_interval

MARGIN = 0.005
T_95_2 = 4.302652729911275
"""The 97.5th percentile of Student's t with 2 degrees of freedom."""
T_975_2 = 6.205346816570787
"""The 98.75th percentile with 2 degrees of freedom: two arms together at 95%."""


def compared(differences: list[float], *, num_arms: int = 1, margin: float = MARGIN) -> Comparison:
    reference = [2.0 + 0.01 * seed for seed in range(len(differences))]
    arm = [loss + each for loss, each in zip(reference, differences, strict=True)]
    return compare(reference, arm, equivalence_margin=margin, num_arms=num_arms)


@pytest.mark.parametrize(("num_arms", "quantile"), [(1, T_95_2), (2, T_975_2)])
def test_the_interval_is_students_by_hand(num_arms: int, quantile: float) -> None:
    found = compared([0.01, 0.02, 0.03], num_arms=num_arms)
    half_width = quantile * 0.01 / math.sqrt(3)
    assert found.interval == pytest.approx((0.02 - half_width, 0.02 + half_width))
    assert found.effect_nats == pytest.approx(0.02)
    assert found.effect_share == pytest.approx(0.02 / 2.01)
    assert found.sd_nats == pytest.approx(0.01)
    assert found.margin_nats == pytest.approx(MARGIN * 2.01)
    assert found.num_pairs == 3


def test_two_differences_have_one_degree_of_freedom() -> None:
    assert t_interval([0.0, 2.0], level=0.95) == pytest.approx((1 - 12.7062047, 1 + 12.7062047))


@pytest.mark.parametrize("differences", [[0.01], []])
def test_no_interval_below_two_differences(differences: list[float]) -> None:
    with pytest.raises(ValueError, match="two differences"):
        t_interval(differences, level=0.95)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([-0.100, -0.110, -0.090], "better"),
        ([0.100, 0.110, 0.090], "worse"),
        ([0.0001, -0.0002, 0.0001], "equivalent"),
        ([0.05, -0.03, 0.01], "undecided"),
        # An interval that leaves out 0, and lies inside the margin: of no consequence.
        ([-0.0010, -0.0011, -0.0010], "equivalent"),
        # It leaves out 0 and reaches past the margin: the direction is known.
        ([-0.0100, -0.0110, -0.0120], "better"),
        ([0.0, 0.0, 0.0], "equivalent"),
        ([0.5, 0.5, 0.5], "worse"),
    ],
)
def test_verdicts(differences: list[float], verdict: str) -> None:
    assert compared(differences).verdict == verdict


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("num_seeds", [2, 3, 8])
def test_rounding_of_one_sign_in_every_seed_is_no_finding(num_seeds: int, sign: int) -> None:
    found = compared([sign * 1e-7 * (1 + 1e-3 * seed) for seed in range(num_seeds)])
    assert found.interval is not None and found.interval[0] * found.interval[1] > 0
    assert found.verdict == "equivalent"


def test_one_seed_is_always_undecided() -> None:
    for difference in (0.0, -1.0, math.inf):
        found = compared([difference])
        assert found.verdict == "undecided" and found.interval is None


def test_seeds_that_changed_nothing_count_as_one() -> None:
    found = compare([2.0, 2.0, 2.0], [1.5, 1.5, 1.5], equivalence_margin=MARGIN)
    assert found.verdict == "undecided"
    assert "count as one" in found.because


@pytest.mark.parametrize(
    ("reference", "arm", "verdict"),
    [
        ([2.0, 2.1, 2.2], [math.inf] * 3, "worse"),
        ([math.inf] * 3, [2.0, 2.1, 2.2], "better"),
        ([2.0, 2.1, 2.2], [2.0, math.inf, math.nan], "undecided"),
        ([2.0, math.inf, 2.2], [math.inf] * 3, "undecided"),
        ([math.inf] * 2, [math.inf] * 2, "undecided"),
    ],
)
def test_divergence(reference: list[float], arm: list[float], verdict: str) -> None:
    found = compare(reference, arm, equivalence_margin=MARGIN)
    assert found.verdict == verdict
    assert found.effect_nats is None and found.interval is None
    assert "came to no loss in" in found.because


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan])
def test_without_a_margin_there_is_no_verdict(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        compared([0.1, 0.2], margin=margin)


def test_arms_of_different_numbers_of_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="runs of the reference"):
        compare([2.0, 2.1], [2.0], equivalence_margin=MARGIN)


def test_agrees_with_the_tests_of_scipy_and_statsmodels() -> None:
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(300):
        num_seeds = int(rng.integers(2, 9))
        reference = 2 + 0.1 * rng.normal(size=num_seeds)
        arm = reference + rng.normal(0.01 * rng.normal(), 0.003 * rng.exponential(), num_seeds)
        found = compare(list(reference), list(arm), equivalence_margin=MARGIN)
        margin = MARGIN * reference.mean()
        is_equivalent = ttost_paired(arm, reference, -margin, margin)[0] < ALPHA / 2
        differs = stats.ttest_rel(arm, reference).pvalue < ALPHA
        assert (found.verdict == "equivalent") == is_equivalent
        assert (found.verdict in {"better", "worse"}) == (differs and not is_equivalent)
        seen.add(found.verdict)
    assert len(seen) == 4


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_the_interval_covers_as_often_as_it_says(num_seeds: int) -> None:
    rng = np.random.default_rng(num_seeds)
    effect, num_studies = 0.02, 1000
    covered = 0
    for _ in range(num_studies):
        found = compared(list(rng.normal(effect, 0.01, num_seeds)))
        assert found.interval is not None
        covered += found.interval[0] <= effect <= found.interval[1]
    assert stats.binomtest(covered, num_studies, 1 - ALPHA).pvalue > 0.01


@pytest.mark.parametrize("num_arms", [1, 3])
def test_what_does_not_differ_is_called_different_in_one_study_of_twenty(num_arms: int) -> None:
    """The arms share their reference, so that a bound on all of them holds with room to spare."""
    rng = np.random.default_rng(7)
    num_studies, called = 1000, 0
    for _ in range(num_studies):
        losses = (2 + 0.05 * rng.normal(size=(num_arms + 1, 3))).tolist()
        verdicts = {
            compare(losses[0], arm, equivalence_margin=MARGIN, num_arms=num_arms).verdict
            for arm in losses[1:]
        }
        called += bool(verdicts & {"better", "worse"})
    assert stats.binomtest(called, num_studies, ALPHA, alternative="greater").pvalue > 0.01


def test_seeds_needed_settle_four_studies_of_five() -> None:
    effect, sd, margin = 0.02, 0.02, 0.001
    number = seeds_needed(effect, sd, margin)
    assert number == 10
    rng = np.random.default_rng(3)
    settled = [t_interval(rng.normal(effect, sd, number), level=0.95)[0] > 0 for _ in range(1000)]
    assert sum(settled) == pytest.approx(800, abs=40)


def test_seeds_needed_by_what_is_quicker_to_show() -> None:
    assert seeds_needed(0.0, 0.01, 0.02) == seeds_needed(0.0, 0.01, 0.02, alpha=0.05)
    assert (seeds_needed(0.0, 0.01, 0.02) or 0) < (seeds_needed(0.0, 0.01, 0.01) or 0)
    assert seeds_needed(1e-6, 1.0, 1e-5) is None
    assert seeds_needed(0.0, 0.0, 0.01) == 2


def test_an_undecided_study_says_how_many_seeds_are_left() -> None:
    found = compared([0.06, -0.02, 0.02])
    assert found.effect_nats is not None and found.sd_nats is not None and found.margin_nats
    needed = seeds_needed(found.effect_nats, found.sd_nats, found.margin_nats)
    assert needed is not None
    assert found.more_seeds == needed - 3


def test_json_keeps_a_comparison() -> None:
    found = compared([0.05, -0.03, 0.01])
    record = {name: getattr(found, name) for name in Comparison.__dataclass_fields__}
    assert Comparison.from_json({**record, "interval": list(found.interval or ())}) == found


@pytest.mark.parametrize(
    ("effect", "alpha", "number"),
    [(1.5, 0.05, 6), (3.0, 0.05, 4), (4.0, 0.05, 3), (2.0, 0.025, 6), (8.0, 0.05, 3)],
)
def test_seeds_needed_are_those_of_a_simulation(effect: float, alpha: float, number: int) -> None:
    assert seeds_needed(effect, 1.0, 1e-9, alpha=alpha) == number
    rng = np.random.default_rng(5)
    reached = {
        seeds: np.mean(
            [t_interval(rng.normal(effect, 1, seeds), level=1 - alpha)[0] > 0 for _ in range(1000)]
        )
        for seeds in (number - 1, number)
    }
    assert reached[number - 1] < 0.8 + 0.03 and reached[number] > 0.8 - 0.03


def test_what_no_seed_moves_is_certain_where_none_need_move_it() -> None:
    found = compare([100.0] * 3, [60.0] * 3, equivalence_margin=0.03, is_deterministic=True)
    assert (found.verdict, found.interval) == ("better", (-40.0, -40.0))
    assert compare([100.0] * 3, [60.0] * 3, equivalence_margin=0.03).verdict == "undecided"
