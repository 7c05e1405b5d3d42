from __future__ import annotations

import pytest
from planning.facts import CARD_8GB, CARD_24GB, CPU, PLAIN_CPU, cuda, planned

from trimtab.errors import ConfigError


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
