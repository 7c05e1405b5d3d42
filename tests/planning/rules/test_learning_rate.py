"""Guide row 8: the learning rate's prior, its cap, and what beats it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from planning.facts import CARD_80GB, LLAMA_8B, LLAMA_135M, as_facts, config, planned

from trimtab.planning.rules.learning_rate import (
    decide_learning_rate,
    learning_rate_prior,
    range_rates,
)
from trimtab.planning.rules.ruling import Ruling

BATCH_128 = {"global_batch_size": 128, "device": CARD_80GB}


def rate(**values: object) -> float:
    value = planned(**values).decision("learning_rate").value  # type: ignore[arg-type]
    assert isinstance(value, float)
    return value


@pytest.mark.parametrize(
    ("method", "num_parameters", "expected"),
    [
        ("lora", 135_000_000, 1e-3),
        ("lora", 3_999_999_999, 1e-3),
        ("lora", 4_000_000_000, 3e-4),
        ("full", 135_000_000, 1e-4),
        ("full", 4_000_000_000, 3e-5),
    ],
)
def test_prior_at_the_sweeps_batch(method: str, num_parameters: int, expected: float) -> None:
    model = LLAMA_135M | {"model.num_parameters": num_parameters}
    assert rate(model=model, method=method, **BATCH_128) == expected


@pytest.mark.parametrize(
    ("batch", "expected"), [(128, 1e-3), (32, 5e-4), (16, 3.5e-4), (512, 2e-3), (8, 2.5e-4)]
)
def test_it_follows_the_square_root_of_the_batch(batch: int, expected: float) -> None:
    assert rate(global_batch_size=batch, device=CARD_80GB) == expected


def test_packed_rows_count_by_their_examples() -> None:
    packed = planned(packing=True, global_batch_size=16, device=CARD_80GB)
    examples = 16 * 973 / 487
    expected = 1e-3 * math.sqrt(examples / 128)
    assert packed.decision("learning_rate").value == pytest.approx(expected, rel=0.03)
    assert packed.decision("learning_rate").value > rate(global_batch_size=16, device=CARD_80GB)


@pytest.mark.parametrize(
    ("optim", "lora", "full"),
    [
        ("adamw", 1e-3, 1e-4),
        ("adam", 1e-3, 1e-4),
        ("adamw_8bit", 1e-3, 1e-4),
        ("adamw_schedule_free", 1e-3, 1e-4),
        ("muon", 1e-3, 1e-4),
        ("lion", 2e-4, 2e-5),
        ("adafactor", 1e-2, 1e-3),
        ("sgd", 0.1, 0.01),
    ],
)
def test_each_optimizer_has_its_rate(optim: str, lora: float, full: float) -> None:
    assert rate(optim=optim, method="lora", **BATCH_128) == lora
    assert rate(optim=optim, method="full", **BATCH_128) == full


def test_sgd_says_that_nothing_is_known() -> None:
    plan = planned(optim="sgd")
    assert "no published sweep" in plan.decision("learning_rate").because
    assert rate(optim="sgd", global_batch_size=8) == rate(optim="sgd", global_batch_size=64)


def test_the_reason_and_its_limits() -> None:
    decision = planned(model=LLAMA_8B, device=CARD_80GB).decision("learning_rate")
    assert decision.origin == "rule"
    assert "8.03B weights" in decision.because
    assert "16 examples ÷ 128" in decision.because
    assert decision.limits is not None
    assert "not range-tested" in decision.limits
    assert [one.value for one in decision.alternatives] == [3.7e-5, 3.3e-4]


def test_the_users_rate_is_set_beside_the_prior() -> None:
    decision = planned(learning_rate=3.5e-3).decision("learning_rate")
    assert (decision.value, decision.origin) == (3.5e-3, "user")
    assert "10× the prior" in decision.because
    assert decision.alternatives[0].value == 3.5e-4


PRIOR = 3.5e-4
"""Of 16 examples an update with LoRA at 135M weights."""
CURVE = [[1.2e-4, 2.0], [3.5e-4, 1.9], [1e-3, 2.4]]


def ruling(known: Mapping[str, Any] | None = None, **values: Any) -> Ruling:
    """The rule's answer to the range question of key `this`."""
    facts = LLAMA_135M | {"rows.num_rows": 1000} | dict(known or {})
    return decide_learning_rate(
        config(**values),
        as_facts(facts),
        optim="adamw",
        examples_per_update=16,
    )


def range_test(diverging_rate: float | None, losses: object = CURVE) -> dict[str, Any]:
    return {
        "rate_range.key": "this",
        "rate_range.losses": losses,
        "rate_range.diverging_rate": diverging_rate,
    }


def test_a_loss_that_was_not_finite_is_told() -> None:
    curve = [[3.5e-4, 1.9], [1e-3, None]]
    (made,) = ruling(range_test(1e-3, losses=curve)).decisions
    assert "not finite at 0.001" in made.because


def test_the_prior_can_be_asked_for_alone() -> None:
    facts = as_facts(LLAMA_135M)
    given = {"optim": "adamw", "examples_per_update": 16}
    assert learning_rate_prior(config(), facts, **given) == PRIOR  # type: ignore[arg-type]
    assert learning_rate_prior(config(learning_rate=1.0), facts, **given) == PRIOR  # type: ignore[arg-type]


@pytest.mark.parametrize("prior", [PRIOR, 3.5e-5, 0.1])
def test_the_range_rises_around_the_prior(prior: float) -> None:
    rates = range_rates(prior)
    assert len(rates) <= 8
    steps = [high / low for low, high in pairwise(rates)]
    assert steps == pytest.approx([3] * len(steps), rel=0.01)
    # A third of one of the first rates is under the prior: there the cap binds.
    assert sum(rate / 3 < prior * 0.99 for rate in rates) == 3
    assert rates[-1] > 20 * prior


@pytest.mark.parametrize(
    ("diverging_rate", "expected"),
    [(1e-4, 3.3e-5), (3.5e-4, 1.2e-4), (1e-3, 3.3e-4), (1.1e-3, 3.5e-4), (1e-2, 3.5e-4)],
)
def test_auto_stays_under_a_third_of_the_diverging_rate(
    diverging_rate: float, expected: float
) -> None:
    (made,) = ruling(range_test(diverging_rate)).decisions
    assert (made.value, made.origin) == (expected, "measured")
    assert "rate_range.diverging_rate" in made.facts
    assert f"an update at {diverging_rate:g} raised the loss" in made.because
    assert "1.9 at 0.00035" in made.because
    assert made.limits is not None and "1803.02021" in made.limits


def test_a_capped_rate_keeps_the_prior_among_its_alternatives() -> None:
    (made,) = ruling(range_test(3.5e-4)).decisions
    assert made.alternatives[0].value == PRIOR
    assert "over a third of the diverging rate" in made.alternatives[0].because


def test_a_range_without_divergence_leaves_the_prior_and_is_told() -> None:
    answer = ruling(range_test(None))
    (made,) = answer.decisions
    assert (made.value, made.origin) == (PRIOR, "measured")
    assert "no rate up to 0.001 did harm" in made.because
    assert answer.not_measured == ()


def test_without_a_range_the_prior_stands() -> None:
    answer = ruling()
    assert (answer.decisions[0].value, answer.decisions[0].origin) == (PRIOR, "rule")
    assert answer.not_measured


def test_a_failed_range_test_is_told() -> None:
    answer = ruling({"rate_range.key": "this", "rate_range.failure": "the device refused"})
    assert (answer.decisions[0].value, answer.decisions[0].origin) == (PRIOR, "rule")
    assert "the device refused" in answer.not_measured[0]


@pytest.mark.parametrize(
    ("asked", "is_warned"), [(1e-4, False), (9.9e-4, False), (1e-3, True), (0.5, True)]
)
def test_an_explicit_rate_that_diverges_is_kept_and_warned_of(
    asked: float, is_warned: bool
) -> None:
    answer = ruling(range_test(1e-3), learning_rate=asked)
    assert (answer.decisions[0].value, answer.decisions[0].origin) == (asked, "user")
    assert len(answer.warnings) == is_warned
    if is_warned:
        assert "0.001" in answer.warnings[0]
        assert "0.00033" in answer.warnings[0]
        assert "2.4 at 0.001" in answer.warnings[0]
    assert "an update at 0.001 did harm" in answer.decisions[0].because


def test_an_explicit_rate_without_a_range_is_not_warned_of() -> None:
    answer = ruling(learning_rate=5e-3)
    assert answer.warnings == ()
    assert answer.not_measured == ("where the learning rate starts to diverge on this run",)


def test_a_rate_far_above_the_prior_is_warned_of() -> None:
    prior = rate(**BATCH_128)
    assert not planned(**BATCH_128, learning_rate=99 * prior).warnings
    told = planned(**BATCH_128, learning_rate=200 * prior).warnings
    assert any("200× the prior" in each and "updates so large" in each for each in told)


def test_a_finished_tune_beats_prior_and_cap() -> None:
    tuned = {"tuned.learning_rate": 7e-4}
    (made,) = ruling(tuned | range_test(3.5e-4)).decisions
    assert (made.value, made.origin, made.facts) == (7e-4, "measured", ("tuned.learning_rate",))
    assert "noise" not in made.because
    assert made.alternatives[0].value == PRIOR
    assert ruling(tuned, learning_rate=1e-4).decisions[0].value == 1e-4


def test_a_plateau_is_told_where_it_is_known() -> None:
    tuned = {
        "tuned.learning_rate": 7e-4,
        "tuned.learning_rate.low": 4e-4,
        "tuned.learning_rate.high": 1.2e-3,
    }
    (made,) = ruling(tuned).decisions
    assert "from 0.0004 to 0.0012 (3×) all is equal within noise" in made.because
