"""A run whose number format fails goes on one format safer, from sound weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.faults import overflowing_in_half
from support.runs import read_jsonl, tiny_config

import trimtab
from trimtab.data.rows import MicroBatch
from trimtab.engine import loop, step
from trimtab.engine.evaluation import Evaluation
from trimtab.engine.guard import MAX_SKIPS_IN_A_ROW
from trimtab.engine.step import StepResult, training_step
from trimtab.models.adapters import Model
from trimtab.runs.records import RunSummary

SAFER = pytest.mark.parametrize(
    ("has_native_bf16", "expected"), [(True, "bf16"), (False, "fp32")], ids=["bf16", "no bf16"]
)
NUM_STEPS = 6


class MultipliedGradient(torch.autograd.Function):
    """The loss as it is; its gradient overflows in fp16 at every loss scale, and nowhere else."""

    @staticmethod
    def forward(context: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * 2.0**40


class Multiplying:
    """Multiplies the gradients of all backward passes but the first `after_passes` of a run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, after_passes: int) -> None:
        self.num_passes = 0
        original = step.summed_loss

        def summed_loss(model: Model, batch: MicroBatch) -> torch.Tensor:
            self.num_passes += 1
            loss = original(model, batch)
            if self.num_passes <= after_passes:
                return loss
            multiplied: torch.Tensor = MultipliedGradient.apply(loss)
            return multiplied

        monkeypatch.setattr(step, "summed_loss", summed_loss)


def declare_bf16(monkeypatch: pytest.MonkeyPatch, is_there: bool) -> None:
    monkeypatch.setattr(
        "trimtab.probes.device.is_native", lambda precision, _: precision != "bf16" or is_there
    )


def trained(folder: Path, model: Path, precision: str, **changes: Any) -> RunSummary:
    folder.mkdir(exist_ok=True)
    sizes = {"per_device_train_batch_size": 8, "report_samples": 0, "save_steps": 2}
    return trimtab.train(tiny_config(folder, model, precision=precision, **sizes, **changes))


def updates_of(summary: RunSummary) -> list[dict[str, Any]]:
    return [line for line in read_jsonl(Path(summary.run) / "metrics.jsonl") if "loss" in line]


def events_of(summary: RunSummary, name: str) -> list[dict[str, Any]]:
    return [
        line for line in read_jsonl(Path(summary.run) / "events.jsonl") if line["event"] == name
    ]


def assert_fell_to(summary: RunSummary, expected: str) -> None:
    assert summary.decisions_changed == ("precision",)
    (change,) = events_of(summary, "recipe changed")
    assert change["details"]["hyperparameter"] == "precision"
    assert (change["details"]["from"], change["details"]["to"]) == ("fp16", expected)
    assert [one["step"] for one in updates_of(summary)] == list(range(1, NUM_STEPS + 1))


@SAFER
@pytest.mark.parametrize("method", ["lora", "full"])
def test_products_that_overflow_end_as_the_safer_format_would_have(
    tmp_path: Path,
    tiny_llama_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_native_bf16: bool,
    expected: str,
    method: str,
) -> None:
    declare_bf16(monkeypatch, has_native_bf16)
    model = overflowing_in_half(tiny_llama_folder, tmp_path / "model")
    changes = {"method": method, "eval_dataset": "none"}
    fallen = trained(tmp_path / "fallen", model, "fp16", **changes)
    assert_fell_to(fallen, expected)
    reference = trained(tmp_path / "reference", model, expected, **changes)
    for one, other in zip(updates_of(fallen), updates_of(reference), strict=True):
        for name in ("loss", "learning_rate", "epoch", "num_tokens", "grad_norm"):
            assert one[name] == other[name]


@SAFER
def test_gradients_that_go_on_overflowing_are_skipped_so_often_and_then_fall_back(
    tmp_path: Path,
    tiny_llama_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_native_bf16: bool,
    expected: str,
) -> None:
    declare_bf16(monkeypatch, has_native_bf16)
    multiplying = Multiplying(monkeypatch, after_passes=3)
    fallen = trained(tmp_path / "fallen", tiny_llama_folder, "fp16")
    assert_fell_to(fallen, expected)
    skipped = events_of(fallen, "update skipped")
    assert [one["step"] for one in skipped] == [4] * MAX_SKIPS_IN_A_ROW
    assert len(skipped[0]["details"]["rows"]) == 8
    multiplying.num_passes = 0
    reference = trained(tmp_path / "reference", tiny_llama_folder, expected)
    for one, other in zip(updates_of(fallen), updates_of(reference), strict=True):
        assert one["learning_rate"] == other["learning_rate"]
        assert one["num_tokens"] == other["num_tokens"]
    assert fallen.eval_loss == pytest.approx(reference.eval_loss, rel=0.01)


def test_a_held_out_pass_that_overflows_gives_way_to_a_safer_format(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    model = overflowing_in_half(tiny_llama_folder, tmp_path / "model")
    summary = trained(tmp_path / "run", model, "fp16")
    assert summary.decisions_changed == ("precision",)
    assert summary.base_eval_loss is not None
    assert math.isfinite(summary.base_eval_loss)
    (change,) = events_of(summary, "recipe changed")
    assert change["step"] == 0


def test_a_collapse_goes_back_to_the_last_checkpoint(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, num_passes = step.summed_loss, 0

    def summed_loss(model: Model, batch: MicroBatch) -> torch.Tensor:
        nonlocal num_passes
        num_passes += 1
        return original(model, batch) * (0.0 if num_passes == 4 else 1.0)

    monkeypatch.setattr(step, "summed_loss", summed_loss)
    summary = trained(tmp_path / "run", tiny_llama_folder, "bf16", eval_dataset="none")
    (change,) = events_of(summary, "recipe changed")
    assert (change["step"], change["details"]["to"]) == (4, "fp32")
    assert num_passes == 3 + 1 + (NUM_STEPS - 2)
    assert [one["step"] for one in updates_of(summary)] == list(range(1, NUM_STEPS + 1))


@SAFER
def test_after_a_change_of_precision_the_record_goes_on_being_true(
    tmp_path: Path,
    tiny_llama_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_native_bf16: bool,
    expected: str,
) -> None:
    """fp16 fails at update 2 and the safer format at update 5: four updates were done."""
    declare_bf16(monkeypatch, has_native_bf16)
    num_applied = 0

    def failing(model: Any, micro_batches: Any, optimizer: Any, **arguments: Any) -> StepResult:
        nonlocal num_applied
        if num_applied >= (1 if arguments["precision"] == "fp16" else 4):
            return StepResult(math.nan, math.nan, 1, 1, applied=False)
        num_applied += 1
        return training_step(model, micro_batches, optimizer, **arguments)

    monkeypatch.setattr(loop, "training_step", failing)
    config = tiny_config(tmp_path, tiny_llama_folder, precision="fp16")
    with pytest.raises(trimtab.GuardStop, match=r"not finite.*rows\.jsonl:"):
        trimtab.train(config)
    run = Path(config["output_dir"])
    steps = [line["step"] for line in read_jsonl(run / "metrics.jsonl") if "loss" in line]
    assert steps == [1, 2, 3, 4]
    page = trimtab.write_report(run).read_text(encoding="utf-8")
    assert f"precision fp16 → {expected}: fp16 failed: the loss is nan" in page
    assert "precision changed during the run" in page


def test_a_held_out_loss_that_is_not_finite_in_fp32_stops(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: Evaluation(math.nan, 1, 1, 0.1))
    config = tiny_config(tmp_path, tiny_llama_folder)
    with pytest.raises(trimtab.GuardStop, match="held-out loss is nan"):
        trimtab.train(config)
    assert not (Path(config["output_dir"]) / "adapter").exists()
