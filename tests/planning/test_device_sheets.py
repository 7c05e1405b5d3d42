from __future__ import annotations

import pytest

from trimtab.errors import ConfigError
from trimtab.planning.device_sheets import (
    ASSUMED_MATMUL_SHARE,
    DEVICE_SHEETS,
    DeviceSheet,
    datasheet_facts,
    device_sheet,
    is_elsewhere,
)
from trimtab.planning.fact import Facts


@pytest.mark.parametrize("sheet", DEVICE_SHEETS.values(), ids=DEVICE_SHEETS)
def test_figures_are_of_the_units_they_say(sheet: DeviceSheet) -> None:
    assert 15 * 2**30 <= sheet.memory_bytes <= 192 * 2**30
    assert 5e12 < sheet.flops_per_s["fp32"] < sheet.flops_per_s["fp16"] < 3e15
    assert 3e11 <= sheet.memory_bytes_per_s < 1e13
    assert sheet.inter_node_bytes_per_s < sheet.intra_node_bytes_per_s < sheet.memory_bytes_per_s
    assert 0.5 < sheet.matmul_share < 1
    assert sheet.source


@pytest.mark.parametrize(
    ("written", "name"),
    [("H100", "h100"), ("a100", "a100-80"), ("RTX_4090", "rtx-4090"), ("rtx 3090", "rtx-3090")],
)
def test_a_name_in_other_spellings(written: str, name: str) -> None:
    assert device_sheet(written) is DEVICE_SHEETS[name]


def test_an_unknown_name_is_told_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError) as caught:
        device_sheet("h10")
    assert all(name in str(caught.value) for name in DEVICE_SHEETS)
    assert "Did you mean h100?" in str(caught.value)


def test_facts_say_where_they_are_from() -> None:
    facts = Facts().adding(datasheet_facts(device_sheet("h100")))
    assert is_elsewhere(facts)
    assert facts.number("datasheet.flops_per_s.bf16") == 989e12
    assert facts.by_id["datasheet.memory_bytes_per_s"].method.startswith("datasheet: NVIDIA H100")
    assert facts.by_id["datasheet.matmul_share"].method.startswith("recorded: ")
    assert not any(fact.cost_s for fact in facts)


def test_a_share_that_nobody_recorded_is_assumed() -> None:
    facts = Facts().adding(datasheet_facts(device_sheet("v100")))
    share = facts.by_id["datasheet.matmul_share"]
    assert (share.value, share.method) == (ASSUMED_MATMUL_SHARE, "assumed")
    assert facts.value("device.native.bf16") is False
    assert facts.value("device.native.fp16") is True
