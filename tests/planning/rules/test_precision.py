from __future__ import annotations

from typing import Any

import pytest
from planning.facts import (
    CARD_8GB,
    CARD_24GB,
    CPU,
    PLAIN_CPU,
    as_facts,
    config,
    cuda,
    planned,
)

from trimtab.errors import ConfigError
from trimtab.planning.decision import Decision
from trimtab.planning.rules.precision import decide_precision
from trimtab.planning.rules.ruling import Ruling


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (CPU, "bf16"),
        (PLAIN_CPU, "fp32"),
        (CARD_8GB, "fp16"),
        (CARD_24GB, "bf16"),
        # A card whose fp16 is slower than its fp32 gains nothing from it.
        (cuda(11, fp32=10e12, fp16=0.2e12, bf16=None), "fp32"),
        # Native, but the timing says that it does not pay.
        (CPU | {"device.matmul_flops_per_s.bf16": 99e9}, "fp32"),
        (CPU | {"device.matmul_flops_per_s.bf16": 100e9}, "bf16"),
        # fp16 on a CPU stays out, however fast.
        (PLAIN_CPU | {"device.matmul_flops_per_s.fp16": 9e12, "device.native.fp16": True}, "fp32"),
        # Emulated bf16 does not count, however fast.
        (CARD_8GB | {"device.matmul_flops_per_s.bf16": 90e12}, "fp16"),
    ],
)
def test_auto_follows_the_device_and_its_timing(device: dict[str, object], expected: str) -> None:
    decision = planned(device=device).decision("precision")
    assert decision.value == expected
    assert decision.origin == "measured"
    assert {alternative.value for alternative in decision.alternatives} == (
        {"bf16", "fp16", "fp32"} - {expected}
    )


def test_the_reason_has_the_figures() -> None:
    because = planned(device=CPU).decision("precision").because
    assert "300 GFLOP/s" in because
    assert "3×" in because


def test_auto_without_a_rate_for_bf16() -> None:
    device = {key: value for key, value in CPU.items() if not key.endswith("flops_per_s.bf16")}
    assert planned(device=device).decision("precision").value == "fp32"


def test_an_emulated_format_is_kept_with_a_warning() -> None:
    plan = planned(device=CARD_8GB, precision="bf16")
    assert plan.decision("precision").value == "bf16"
    assert any("emulated" in warning and "fp16" in warning for warning in plan.warnings)
    assert not any("emulated" in warning for warning in planned(precision="bf16").warnings)


def test_a_format_that_does_not_run_is_refused() -> None:
    device = {key: value for key, value in CPU.items() if not key.endswith("flops_per_s.fp16")}
    with pytest.raises(ConfigError, match=r"fp16.*does not run"):
        planned(device=device, precision="fp16")


def updates(precision: str, update_s: float, cosine: float | None, **more: Any) -> dict[str, Any]:
    """What an update in the format was seen to do."""
    values = {"update_s": update_s, "overflows": False, "lost_update_share": 0.0, **more}
    if cosine is not None:
        values |= {"gradient_cosine": cosine, "gradient_norm_ratio": 1.0}
    return {f"precision.{name}.{precision}": value for name, value in values.items()}


REFUSED = CPU | updates("fp32", 2.0, 1.0) | {"precision.lost_update_share.bf16": 0.1}
DIED = REFUSED | {"precision.failure": "it was killed"}


def decided(facts: dict[str, Any], precision: str = "auto") -> Ruling:
    return decide_precision(config(precision=precision), as_facts(facts))


def described(made: Decision, precision: str) -> str:
    told = {each.value: each.because for each in made.alternatives}
    return told.get(precision, made.because)


def test_a_format_that_refuses_an_update_is_not_taken() -> None:
    (made,) = decided(REFUSED).decisions
    assert made.value == "fp32"
    assert "refused an update" in described(made, "bf16")
    with pytest.raises(ConfigError, match=r"bf16.*does not run it"):
        decided(REFUSED, "bf16")


def test_a_format_that_was_not_tried_is_not_said_to_refuse() -> None:
    facts = CPU | updates("fp32", 2.0, 1.0)
    (made,) = decided(facts).decisions
    assert made.value == "fp32"
    assert "refused" not in described(made, "bf16")
    emulated = decided(facts, "fp16")
    assert emulated.decisions[0].value == "fp16"
    assert emulated.not_measured == ("what the number format does to this run's gradient",)


def test_formats_that_could_not_be_compared_are_taken_by_their_products() -> None:
    ruling = decided(DIED)
    (made,) = ruling.decisions
    assert made.value == "bf16"
    assert made.limits is not None
    assert "matrix products" in made.limits
    assert "it was killed" in made.limits
    (told,) = ruling.not_measured
    assert "it was killed" in told
    assert decided(DIED, "bf16").decisions[0].value == "bf16"


def test_a_format_whose_update_was_timed_is_told_as_measured() -> None:
    ruling = decided(CPU | updates("fp32", 2.0, 1.0) | updates("bf16", 1.0, 0.99))
    (made,) = ruling.decisions
    assert made.limits is not None
    assert "the run's rows" in made.limits
    assert ruling.not_measured == ()


@pytest.mark.parametrize(("device", "fast"), [(CPU, "bf16"), (CARD_8GB, "fp16")])
def test_a_format_that_overflows_is_not_taken(device: dict[str, Any], fast: str) -> None:
    facts = device | updates("fp32", 2.0, 1.0) | updates(fast, 1.0, None, overflows=True)
    (made,) = decided(facts).decisions
    assert made.value == "fp32"
    assert "overflows" in described(made, fast)


def test_an_overflow_of_fp32_itself_leaves_nothing_to_compare_with() -> None:
    facts = CPU | updates("fp32", 2.0, None, overflows=True) | updates("bf16", 1.0, None)
    (made,) = decided(facts).decisions
    assert made.value == "bf16"
    assert "nothing to be compared with" in described(made, "bf16")
    assert "overflows" in described(made, "fp32")
