"""Memory that runs out in the middle of a run: the same updates in smaller pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.faults import cpu_runs_out, cuda_runs_out, digest, run_out_above
from support.jobs import Memory, first_state, run_to_end, tiny_job
from support.runs import read_jsonl, tiny_config

import trimtab
from trimtab.cli.app import run as command
from trimtab.engine import step
from trimtab.engine.loop import run_updates
from trimtab.engine.stops import RanOutOfMemory
from trimtab.workflow import jobs

LAYOUTS: dict[str, dict[str, Any]] = {
    "padding-free": {"padding": "none"},
    "padded": {"padding": "longest"},
    "packed": {"packing": True, "max_length": 64, "global_batch_size": 4},
}


def config_of(folder: Path, model: Path, **changes: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    common = {
        "method": "full",
        "per_device_train_batch_size": 4,
        "report_samples": 0,
        "learning_rate": 3e-3,
        "max_steps": 5,
    }
    return tiny_config(folder, model, **{**common, **changes})


def updates_of(run: Path) -> list[dict[str, Any]]:
    return [line for line in read_jsonl(run / "metrics.jsonl") if "loss" in line]


def changes_of(run: Path) -> list[tuple[str, Any, Any]]:
    """Every change of recipe, as hyperparameter, from and to."""
    details = [
        line["details"]
        for line in read_jsonl(run / "events.jsonl")
        if line["event"] == "recipe changed"
    ]
    return [(one["hyperparameter"], one["from"], one["to"]) for one in details]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_the_same_run(run: Path, roomy: Path) -> None:
    """Rows, losses and weights, where only the division into micro-batches differs."""
    for one, other in zip(updates_of(run), updates_of(roomy), strict=True):
        for name in ("step", "epoch", "num_tokens", "num_examples", "learning_rate"):
            assert one[name] == other[name]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    expected = weights_of(roomy)
    for name, weight in weights_of(run).items():
        assert torch.allclose(weight, expected[name], atol=1e-5, rtol=1e-5), name


@pytest.mark.parametrize("fail", [cuda_runs_out, cpu_runs_out])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_the_micro_batch_makes_the_same_update(
    tmp_path: Path,
    tiny_llama_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    fail: Any,
) -> None:
    changes = LAYOUTS[layout]
    roomy = trimtab.train(config_of(tmp_path / "roomy", tiny_llama_folder, **changes))
    assert roomy.decisions_changed == ()

    num_loads = []
    build = jobs.build_model
    monkeypatch.setattr(jobs, "build_model", lambda *a: (num_loads.append(1), build(*a))[1])
    failed = run_out_above(monkeypatch, 130, fail=fail, in_backward=layout == "padded")
    run = trimtab.train(config_of(tmp_path / "tight", tiny_llama_folder, **changes))
    assert failed
    assert len(num_loads) == 1
    assert run.decisions_changed == ("per_device_train_batch_size", "gradient_accumulation_steps")
    assert changes_of(Path(run.run)) == [("per_device_train_batch_size", 4, 2)]
    assert_the_same_run(Path(run.run), Path(roomy.run))


def test_one_example_that_recomputes_is_the_last_way(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy = trimtab.train(config_of(tmp_path / "roomy", tiny_llama_folder))
    run_out_above(monkeypatch, 20, unless_recomputing=True)
    run = trimtab.train(config_of(tmp_path / "tight", tiny_llama_folder))
    assert changes_of(Path(run.run)) == [
        ("per_device_train_batch_size", 4, 2),
        ("per_device_train_batch_size", 2, 1),
        ("activation_checkpointing", "off", "full"),
    ]
    assert "activation_checkpointing" in run.decisions_changed
    assert_the_same_run(Path(run.run), Path(roomy.run))


def test_what_fits_in_no_recipe_ends_with_what_would_need_less(
    tmp_path: Path,
    tiny_llama_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_out_above(monkeypatch, 1)
    config = config_of(tmp_path, tiny_llama_folder, eval_dataset="none")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    assert command(["train", str(path), "--json"]) == 5
    told = capsys.readouterr()
    result = json.loads(told.out)
    assert "out of memory" in result["stopped_by"]
    assert "activation_checkpointing full" in told.err
    assert "Take a smaller model" in told.err
    assert "Traceback" not in told.err
    run = Path(config["output_dir"])
    assert not (run / "model").exists()
    stopped = read_jsonl(run / "events.jsonl")[-1]
    assert stopped["event"] == "stopped"
    assert len(stopped["details"]["rows"]) == 8
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "out of memory" in page
    assert "recipe changed" in page


def test_the_held_out_pass_takes_fewer_examples_at_once(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy = trimtab.train(config_of(tmp_path / "roomy", tiny_llama_folder))
    run_out_above(monkeypatch, 60, training=False)
    run = trimtab.train(config_of(tmp_path / "tight", tiny_llama_folder))
    assert run.decisions_changed == ("per_device_eval_batch_size",)
    assert [name for name, _, _ in changes_of(Path(run.run))] == ["per_device_eval_batch_size"] * 2
    assert run.base_eval_loss == pytest.approx(roomy.base_eval_loss, rel=1e-6)
    assert run.eval_loss == pytest.approx(roomy.eval_loss, rel=1e-6)
    assert_the_same_run(Path(run.run), Path(roomy.run))


@pytest.mark.parametrize(("save_steps", "back_to"), [(2, 4), (50, 0)])
def test_weights_that_moved_in_part_are_not_trusted(
    tmp_path: Path,
    tiny_llama_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    save_steps: int,
    back_to: int,
) -> None:
    changes = {"save_steps": save_steps, "max_steps": 6}
    roomy = trimtab.train(config_of(tmp_path / "roomy", tiny_llama_folder, **changes))
    original = torch.optim.AdamW.step
    num_steps = 0

    def moving_in_part(self: torch.optim.AdamW) -> None:
        nonlocal num_steps
        num_steps += 1
        if num_steps == 5:
            with torch.no_grad():
                self.param_groups[0]["params"][0].add_(7.0)
            cuda_runs_out()
        original(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", moving_in_part)
    run = Path(trimtab.train(config_of(tmp_path / "tight", tiny_llama_folder, **changes)).run)
    saved = [
        line for line in read_jsonl(run / "events.jsonl") if line["event"] == "checkpoint saved"
    ]
    assert back_to in [line["step"] for line in saved]
    assert [one["step"] for one in updates_of(run)] == [1, 2, 3, 4, 5, 6]
    assert_the_same_run(run, Path(roomy.run))


def test_what_dropout_draws_does_not_depend_on_how_far_an_update_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One failure after two of four micro-batches, then the same update again."""
    changes = {"method": "lora", "lora_dropout": 0.5, "num_train_steps": 3}
    sizes = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    whole = tiny_job(tmp_path / "whole", **changes, **sizes)
    torch.manual_seed(7)
    _, expected = run_to_end(whole)

    job = tiny_job(tmp_path / "failed", **changes, **sizes)
    state = first_state(job)
    torch.manual_seed(7)
    before = digest(job)
    original, num_passes = step.summed_loss, 0

    def failing(*arguments: Any) -> torch.Tensor:
        nonlocal num_passes
        num_passes += 1
        if num_passes == 3:
            cuda_runs_out()
        return original(*arguments)

    monkeypatch.setattr(step, "summed_loss", failing)
    with pytest.raises(RanOutOfMemory) as ran_out:
        run_updates(job, state, Memory(), lambda: False)
    assert ran_out.value.phase == "update"
    assert len(ran_out.value.row_ids) == 4
    assert all(parameter.grad is None for parameter in job.optimizer.parameters)
    assert digest(job) == before
    _, memory = run_to_end(job, state)
    assert [one.loss for one in memory.updates] == [one.loss for one in expected.updates]
    assert digest(job) == digest(whole)
