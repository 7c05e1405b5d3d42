from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from psutil import Process
from safetensors.torch import load_file
from support.faults import close_folder
from support.runs import read_jsonl, tiny_config, write_rows
from support.tiny import save_tiny_model

import trimtab
from trimtab.engine import loop
from trimtab.engine.step import StepResult, training_step
from trimtab.runs.records import RunSummary

LOADED_ELSEWHERE = """
import json, sys, torch, warnings
warnings.simplefilter("ignore")
from transformers import AutoModelForCausalLM, AutoTokenizer
from peft import AutoPeftModelForCausalLM
folder, kind = sys.argv[1:]
cls = AutoPeftModelForCausalLM if kind == "lora" else AutoModelForCausalLM
model = cls.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
ids = tokenizer.apply_chat_template(
    [{"role": "user", "content": "the question"}], add_generation_prompt=True, return_tensors="pt",
    return_dict=True,
)["input_ids"]
with torch.no_grad():
    print(json.dumps(model(ids).logits[0, -1].tolist()))
"""


@pytest.mark.parametrize("method", ["lora", "full"])
def test_plan_train_and_generate_from_python(
    tmp_path: Path, tiny_llama_folder: Path, method: str
) -> None:
    plan = trimtab.plan(tiny_config(tmp_path, tiny_llama_folder, method=method))
    assert plan.decision("max_steps").origin == "user"
    assert not any("serve_forks" in "".join(each.cmdline()) for each in Process().children())
    summary = trimtab.train(plan)
    assert summary.num_steps == 6
    assert summary.stopped_by is None
    assert summary.base_eval_loss is not None
    answers = trimtab.generate(summary.run, ["the question"], max_new_tokens=4)
    assert [answer.prompt for answer in answers] == ["the question"]
    result = Path(summary.run) / ("adapter" if method == "lora" else "model")
    names = {path.name for path in result.iterdir()}
    assert {"tokenizer.json", "chat_template.jinja", "generation_config.json"} <= names
    assert not list(result.rglob("*.bin"))


def test_an_output_dir_behind_a_folder_that_may_not_be_entered_is_a_paragraph(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    close_folder(monkeypatch, closed)
    config = tiny_config(tmp_path, tiny_llama_folder, output_dir=str(closed / "run"))
    plan = trimtab.plan(config)
    for asked in (config, plan):
        with pytest.raises(trimtab.ConfigError, match="cannot be made: Permission denied"):
            trimtab.train(asked)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_result_gives_the_same_logits_in_a_fresh_process(
    tmp_path: Path, tiny_llama_folder: Path, method: str
) -> None:
    config = tiny_config(
        tmp_path, tiny_llama_folder, method=method, eval_dataset="none", learning_rate=1e-2
    )
    run = Path(trimtab.train(config).run)
    result = run / ("adapter" if method == "lora" else "model")
    fresh = subprocess.run(
        [sys.executable, "-c", LOADED_ELSEWHERE, str(result), method],
        capture_output=True,
        text=True,
        check=True,
    )
    base = subprocess.run(
        [sys.executable, "-c", LOADED_ELSEWHERE, str(tiny_llama_folder), "full"],
        capture_output=True,
        text=True,
        check=True,
    )
    tuned_logits = torch.tensor(json.loads(fresh.stdout.splitlines()[-1]))
    base_logits = torch.tensor(json.loads(base.stdout.splitlines()[-1]))
    assert float((tuned_logits - base_logits).abs().max()) > 1e-3
    in_memory = _logits_in_this_process(result, tiny_llama_folder, method)
    assert torch.allclose(tuned_logits, in_memory, atol=1e-5)


def _logits_in_this_process(result: Path, base: Path, method: str) -> torch.Tensor:
    """The logits from the result's raw tensors, put into the base by hand."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    name = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    weights = load_file(result / name)
    state = model.state_dict()
    if method == "lora":
        scale = 32 / 16
        for name, a in weights.items():
            if name.endswith("lora_A.weight"):
                b = weights[name.replace("lora_A", "lora_B")]
                target = name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
                state[target] += scale * b @ a
    else:
        for name, tensor in weights.items():
            state[name].copy_(tensor)
    tokenizer = AutoTokenizer.from_pretrained(result)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "the question"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )["input_ids"]
    with torch.no_grad():
        logits: torch.Tensor = model(ids).logits[0, -1]
    return logits


def test_the_run_folder_is_as_drawn(tmp_path: Path, tiny_llama_folder: Path) -> None:
    summary = trimtab.train(tiny_config(tmp_path, tiny_llama_folder, save_steps=2))
    run = Path(summary.run)
    for name in ("config.yaml", "plan.json", "metrics.jsonl", "events.jsonl", "data.json"):
        assert (run / name).is_file(), name
    updates = [line for line in read_jsonl(run / "metrics.jsonl") if "loss" in line]
    evaluations = [line for line in read_jsonl(run / "metrics.jsonl") if "eval_loss" in line]
    assert [line["step"] for line in updates] == [1, 2, 3, 4, 5, 6]
    assert evaluations[0]["step"] == 0
    wanted = {
        "step", "epoch", "loss", "num_tokens", "num_trainable_tokens", "learning_rate",
        "grad_norm", "seconds", "tokens_per_s", "peak_memory_bytes",
    }  # fmt: skip
    assert wanted <= updates[0].keys()
    saved = [line for line in read_jsonl(run / "events.jsonl") if line["event"].endswith("saved")]
    assert [line["step"] for line in saved] == [2, 4, 6]
    record = RunSummary.from_json(json.loads((run / "summary.json").read_text()))
    assert record.status == "done"
    page = trimtab.write_report(run)
    assert "Finished" in page.read_text(encoding="utf-8")


def test_an_existing_run_is_never_overwritten(tmp_path: Path, tiny_llama_folder: Path) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, max_steps=1)
    run = Path(trimtab.train(config).run)
    before = (run / "plan.json").read_bytes()
    with pytest.raises(trimtab.ConfigError, match="never overwritten"):
        trimtab.train(config)
    assert (run / "plan.json").read_bytes() == before


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path, tiny_llama_folder: Path) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, target_modules=["no_such_module"])
    with pytest.raises(trimtab.ConfigError, match="no_such_module"):
        trimtab.train(config)
    assert not Path(config["output_dir"]).exists()


def test_a_full_disk_is_seen_before_training(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    config = tiny_config(tmp_path, tiny_llama_folder)
    with pytest.raises(trimtab.ConfigError, match="disk"):
        trimtab.train(config)
    assert not Path(config["output_dir"]).exists()


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


def test_a_fault_in_every_precision_stops_and_hands_nothing_over(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _failing_in({"fp16", "bf16", "fp32"}, monkeypatch)
    config = tiny_config(tmp_path, tiny_llama_folder, precision="fp32")
    with pytest.raises(trimtab.GuardStop, match=r"not finite.*rows\.jsonl:") as stop:
        trimtab.train(config)
    assert stop.value.exit_code == 4
    run = Path(config["output_dir"])
    assert not (run / "adapter").exists()
    assert json.loads((run / "summary.json").read_text())["status"] == "stopped"
    assert "stopped" in (trimtab.write_report(run)).read_text(encoding="utf-8").lower()


def test_a_diverged_run_hands_nothing_over(tmp_path: Path, tiny_llama_folder: Path) -> None:
    config = tiny_config(
        tmp_path, tiny_llama_folder, learning_rate=1000.0, method="full", max_steps=40
    )
    with pytest.raises(trimtab.GuardStop):
        trimtab.train(config)
    assert not (Path(config["output_dir"]) / "model").exists()


def test_weights_without_a_held_out_row_are_the_last(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    summary = trimtab.train(tiny_config(tmp_path, tiny_llama_folder, eval_dataset="none"))
    assert summary.eval_loss is None
    assert summary.best_step is None
    assert summary.result == "adapter"


def test_a_separate_evaluation_file_is_held_out(tmp_path: Path, tiny_llama_folder: Path) -> None:
    held_out = write_rows(tmp_path / "held.jsonl", 20)
    config = tiny_config(tmp_path, tiny_llama_folder, eval_dataset=str(held_out))
    summary = trimtab.train(config)
    data = json.loads((Path(summary.run) / "data.json").read_text())
    assert data["num_eval_examples"] == 20
    assert data["num_duplicates_of_held_out"] == 20
    assert data["num_train_examples"] == 28


@pytest.mark.parametrize("template", [True, False], ids=["chat model", "base model"])
def test_text_rows_and_base_models_train(tmp_path: Path, template: bool) -> None:
    model = save_tiny_model(tmp_path / "m", **({} if template else {"chat_template": None}))
    rows = tmp_path / "rows.txt"
    rows.write_text("the quick brown fox jumps\n" * 3 + "over the lazy dog\n" * 30)
    config = tiny_config(tmp_path, model, dataset=str(rows), eval_dataset="none", max_steps=2)
    assert trimtab.train(config).num_steps == 2
