"""What plans come to on devices of several kinds, from facts in files: no device is asked.

`devices/*.json` hold a device's facts, recorded by the device probe or constructed by hand; each
says which.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from planning.facts import LLAMA_8B, LLAMA_135M, planned

from trimtab.errors import DoesNotFit
from trimtab.planning.fact import Fact, Facts

DEVICES = Path(__file__).parent / "devices"
CPU, TURING, AMPERE, HOPPER = (
    "cpu_2_threads",
    "cuda_8gb_turing",
    "cuda_24gb_ampere",
    "cuda_80gb_hopper",
)
ALL = (CPU, TURING, AMPERE, HOPPER)


def device(name: str) -> dict[str, Any]:
    """The values of a file's facts by id."""
    record = json.loads((DEVICES / f"{name}.json").read_text(encoding="utf-8"))
    return {fact["id"]: fact["value"] for fact in record["facts"]}


def test_every_file_says_whether_it_was_recorded_and_holds_facts() -> None:
    assert sorted(path.stem for path in DEVICES.iterdir()) == sorted(ALL)
    for name in ALL:
        record = json.loads((DEVICES / f"{name}.json").read_text(encoding="utf-8"))
        assert record.keys() == {"constructed", "what", "facts"}
        assert record["constructed"] == (name != CPU)
        facts = Facts().adding(Fact.from_json(fact) for fact in record["facts"])
        for fact in facts:
            assert ("constructed" in fact.method) == record["constructed"], fact.id
        for fact_id in ("kind", "name", "memory_bytes", "memory_available_bytes", "native.bf16"):
            assert f"device.{fact_id}" in facts
        assert facts.number("device.memory_available_bytes") <= facts.number("device.memory_bytes")


@pytest.mark.parametrize("name", ALL)
def test_a_small_model_is_planned_on_each(name: str) -> None:
    plan = planned(device=device(name), model=LLAMA_135M)
    limit = plan.settings().memory_limit
    assert plan.predictions.peak_memory_bytes is not None
    assert plan.predictions.peak_memory_bytes <= limit
    assert limit < device(name)["device.memory_bytes"]
    assert plan.settings().device == device(name)["device.kind"]


@pytest.mark.parametrize(
    ("name", "precision"), [(CPU, "bf16"), (TURING, "fp16"), (AMPERE, "bf16"), (HOPPER, "bf16")]
)
def test_the_format_is_what_the_device_has_and_not_what_it_is_called(
    name: str, precision: str
) -> None:
    decision = planned(device=device(name)).decision("precision")
    assert decision.value == precision
    assert {other.value for other in decision.alternatives} == {"bf16", "fp16", "fp32"} - {
        precision
    }


def test_fp16_is_told_to_need_a_scaled_loss_and_bf16_to_be_emulated() -> None:
    decision = planned(device=device(TURING)).decision("precision")
    assert "loss scaling" in decision.because
    (bf16,) = [other for other in decision.alternatives if other.value == "bf16"]
    assert "emulated" in bf16.because


@pytest.mark.parametrize("name", [AMPERE, HOPPER])
def test_adapters_of_a_model_of_8b_fit(name: str) -> None:
    plan = planned(device=device(name), model=LLAMA_8B, method="lora")
    assert plan.predictions.peak_memory_bytes is not None
    assert plan.predictions.peak_memory_bytes <= plan.settings().memory_limit
    assert plan.predictions.peak_memory_bytes > 2 * LLAMA_8B["model.num_parameters"]


def test_more_memory_lets_more_rows_into_a_micro_batch() -> None:
    ampere, hopper = (
        planned(device=device(name), model=LLAMA_8B, method="lora").settings()
        for name in (AMPERE, HOPPER)
    )
    assert hopper.per_device_train_batch_size >= ampere.per_device_train_batch_size
    assert hopper.global_batch_size == ampere.global_batch_size


@pytest.mark.parametrize("name", [TURING, AMPERE, HOPPER])
def test_all_weights_of_a_model_of_8b_do_not_fit_and_a_way_out_is_named(name: str) -> None:
    with pytest.raises(DoesNotFit) as refused:
        planned(device=device(name), model=LLAMA_8B, method="full")
    assert refused.value.exit_code == 5
    assert refused.value.hint
    assert "lora" in refused.value.hint


def test_devices_are_planned_for_without_torch() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from planning.test_devices import AMPERE, device, planned;"
        "planned(device=device(AMPERE));"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
