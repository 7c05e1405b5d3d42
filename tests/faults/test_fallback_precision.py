"""A run whose number format fails goes on one format safer, from sound weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.runs import read_jsonl, tiny_config

import trimtab
from trimtab.engine import loop
from trimtab.engine.step import StepResult, training_step


def _failing_in(precisions: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the second update and later ones overflow in the given precisions."""
    done = {"applied": 0}

    def step(model: Any, micro_batches: Any, optimizer: Any, **arguments: Any) -> StepResult:
        if arguments["precision"] in precisions and done["applied"] >= 1:
            batch = micro_batches[0]
            if arguments["loss_scale"] is not None:
                arguments["loss_scale"].overflowed()
            return StepResult(float("nan"), float("nan"), batch.num_tokens, 1, applied=False)
        result = training_step(model, micro_batches, optimizer, **arguments)
        done["applied"] += result.applied
        return result

    monkeypatch.setattr(loop, "training_step", step)


@pytest.mark.parametrize(
    ("has_native_bf16", "expected"), [(True, "bf16"), (False, "fp32")], ids=["bf16", "no bf16"]
)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_precision_that_overflows_gives_way_to_a_safer_one(
    tmp_path: Path,
    tiny_llama_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_native_bf16: bool,
    expected: str,
    method: str,
) -> None:
    monkeypatch.setattr(
        "trimtab.probes.device.is_native",
        lambda precision, _: precision != "bf16" or has_native_bf16,
    )
    _failing_in({"fp16"}, monkeypatch)
    config = tiny_config(tmp_path, tiny_llama_folder, precision="fp16", method=method)
    summary = trimtab.train(config)
    assert summary.decisions_changed == ("precision",)
    assert summary.num_steps == 6
    run = Path(summary.run)
    (change,) = [
        line for line in read_jsonl(run / "events.jsonl") if line["event"] == "recipe changed"
    ]
    assert change["details"]["to"] == expected
    steps = [line["step"] for line in read_jsonl(run / "metrics.jsonl") if "loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6]
