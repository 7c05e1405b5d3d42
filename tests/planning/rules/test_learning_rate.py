"""Guide row 8: the learning rate's prior."""

from __future__ import annotations

import math

import pytest
from planning.facts import CARD_80GB, LLAMA_8B, LLAMA_135M, planned

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
