"""Each row of the practitioner's guide, on a real run of a tiny model: the setting is in force.

A row's test fails where the setting is accepted and ignored.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.runs import read_jsonl, tiny_config

import trimtab


class Run:
    """A finished run's plan and updates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        lines = read_jsonl(folder / "metrics.jsonl")
        self.updates = [line for line in lines if "loss" in line]
        self.rates = [line["learning_rate"] for line in self.updates]
        self.losses = [line["loss"] for line in self.updates]

    def value(self, name: str) -> Any:
        return self.decision(name)["value"]

    def decision(self, name: str) -> dict[str, Any]:
        (found,) = [one for one in self.plan["decisions"] if one["name"] == name]
        return dict(found)

    def adapter(self) -> dict[str, Any]:
        return dict(load_file(self.folder / "adapter" / "adapter_model.safetensors"))


@pytest.fixture
def trained(tmp_path: Path, tiny_llama_folder: Path) -> Any:
    """Train with changes to the tiny configuration; each call is a run of its own."""
    count = 0

    def run(**changes: Any) -> Run:
        nonlocal count
        count += 1
        changes = {"output_dir": str(tmp_path / f"run-{count}"), **changes}
        changes = {"eval_dataset": "none", "report_samples": 0, **changes}
        return Run(Path(trimtab.train(tiny_config(tmp_path, tiny_llama_folder, **changes)).run))

    return run


def test_row_1_the_micro_batch_is_chosen_and_the_global_batch_kept(trained: Any) -> None:
    run = trained(global_batch_size=16, max_steps=2)
    assert run.value("per_device_train_batch_size") == 16
    first = run.updates[0]["num_tokens"]
    small = trained(global_batch_size=16, per_device_train_batch_size=2, max_steps=2)
    assert small.value("gradient_accumulation_steps") == 8
    assert small.updates[0]["num_tokens"] == first
    assert small.losses == pytest.approx(run.losses, rel=1e-5)


def test_row_2_an_odd_micro_batch_is_kept_with_a_warning(trained: Any) -> None:
    run = trained(per_device_train_batch_size=9, global_batch_size="auto", max_steps=1)
    assert run.value("per_device_train_batch_size") == 9
    assert any("9" in warning and "8" in warning for warning in run.plan["warnings"])


@pytest.mark.parametrize("padding", ["longest", "max_length"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad_token", ["unk", "eos", "<s>"])
def test_row_3_padding_changes_the_work_and_not_the_loss(
    trained: Any, padding: str, side: str, pad_token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trimtab.engine import loss as loss_module

    seen = []
    original = loss_module.summed_loss

    def spied(model: Any, batch: Any) -> Any:
        seen.append(batch)
        return original(model, batch)

    monkeypatch.setattr("trimtab.engine.step.summed_loss", spied)
    run = trained(
        padding=padding,
        padding_side=side,
        pad_token=pad_token,
        max_length=128,
        pad_to_multiple_of=8,
        max_steps=2,
    )
    expected = {"unk": 0, "eos": 4, "<s>": 1}[pad_token]
    for batch in seen:
        padded = batch.attention_mask == 0
        assert padded.any()
        assert set(batch.input_ids[padded].tolist()) == {expected}
        assert batch.input_ids.shape[1] % 8 == 0
        assert (batch.input_ids.shape[1] == 128) == (padding == "max_length")
        edge = 0 if side == "left" else -1
        assert bool(padded[:, edge].any())
    free = trained(max_steps=2)
    assert run.losses == pytest.approx(free.losses, rel=1e-5)


def test_row_4_accumulation_is_in_force_and_changes_nothing(trained: Any) -> None:
    runs = [
        trained(gradient_accumulation_steps=k, global_batch_size=8, max_steps=3) for k in (1, 2, 8)
    ]
    assert [run.value("per_device_train_batch_size") for run in runs] == [8, 4, 1]
    for run in runs[1:]:
        assert run.losses == pytest.approx(runs[0].losses, rel=1e-5)


@pytest.mark.parametrize("checkpointing", ["full", 2])
def test_row_5_checkpointing_recomputes_and_changes_nothing(
    trained: Any, checkpointing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.models.llama.modeling_llama as llama

    calls = {"forward": 0}
    original = llama.LlamaMLP.forward

    def counted(self: Any, *arguments: Any) -> Any:
        calls["forward"] += 1
        return original(self, *arguments)

    # What the plan tries on a model of its own is recalled by the runs that are counted.
    trained(activation_checkpointing="off", max_steps=2)
    monkeypatch.setattr(llama.LlamaMLP, "forward", counted)
    off = trained(activation_checkpointing="off", max_steps=2)
    without = calls["forward"]
    on = trained(activation_checkpointing=checkpointing, max_steps=2)
    extra = calls["forward"] - 2 * without
    assert extra == {"full": 4, 2: 2}[checkpointing]
    assert on.losses == pytest.approx(off.losses, rel=1e-6)


def test_row_6_steps_are_updates_and_epochs_are_every_example_once(trained: Any) -> None:
    run = trained(
        num_train_epochs=2, max_steps=-1, global_batch_size=16, per_device_train_batch_size=4
    )
    assert [line["step"] for line in run.updates] == [1, 2, 3, 4, 5, 6]
    assert run.updates[2]["epoch"] == 1.0
    assert run.updates[-1]["epoch"] == 2.0
    tokens = [line["num_tokens"] for line in run.updates]
    assert sum(tokens[:3]) == sum(tokens[3:])


def test_row_7_epochs_win_within_a_layer_and_the_later_layer_wins(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, num_train_epochs=1, max_steps=2)
    config["eval_dataset"] = "none"
    both = trimtab.plan(config, quick=True)
    assert both.predictions.num_steps == 6
    because = both.decision("num_train_epochs").because
    assert "2" in because and "6" in because
    later = trimtab.plan(config, options=[("max_steps", "2")], quick=True)
    assert later.predictions.num_steps == 2


def test_row_8_the_rate_is_the_size_of_the_step(trained: Any) -> None:
    small = trained(learning_rate=1e-5, max_steps=3, lr_scheduler_type="constant")
    large = trained(learning_rate=1e-3, max_steps=3, lr_scheduler_type="constant")
    assert set(small.rates) == {1e-5}

    def moved(run: Run) -> float:
        adapter = run.adapter()
        return float(sum(v.abs().sum() for k, v in adapter.items() if "lora_B" in k))

    assert 50 < moved(large) / moved(small) < 200


SHAPES: dict[str, Any] = {
    "linear": lambda r: r[1] > r[3] > r[5],
    "cosine": lambda r: r[1] > r[3] > r[5],
    "constant": lambda r: len(set(r)) == 1,
    "constant_with_warmup": lambda r: r[0] == 0 and r[1] == r[5],
    "cosine_with_restarts": lambda r: r[1] > r[3] > r[5],
    "cosine_with_min_lr": lambda r: r[5] > 0.09 * r[1],
    "polynomial": lambda r: r[1] > r[3] > r[5],
    "inverse_sqrt": lambda r: r[1] > r[5] > 0.3 * r[1],
    "warmup_stable_decay": lambda r: r[1] == r[3] > r[4] > r[5],
}


@pytest.mark.parametrize("name", SHAPES)
def test_row_9_the_schedule_has_its_shape(trained: Any, name: str) -> None:
    warmup = 0 if name == "constant" else 1
    arguments = {"num_decay_steps": 3} if name == "warmup_stable_decay" else {}
    run = trained(
        lr_scheduler_type=name,
        lr_scheduler_kwargs=arguments,
        warmup_steps=warmup,
        learning_rate=1e-3,
        max_steps=6,
    )
    assert SHAPES[name](run.rates), run.rates


@pytest.mark.parametrize(
    ("changes", "num_warmup"),
    [({"warmup_steps": 4}, 4), ({"warmup_steps": 0.25}, 5), ({"warmup_ratio": 0.5}, 10), ({}, 2)],
    ids=str,
)
def test_row_10_the_rate_warms_up(trained: Any, changes: dict[str, Any], num_warmup: int) -> None:
    run = trained(max_steps=20, learning_rate=1e-3, **changes)
    assert run.rates.index(max(run.rates)) == num_warmup
    assert run.rates[: num_warmup + 1] == pytest.approx(
        [1e-3 * step / num_warmup for step in range(num_warmup + 1)]
    )


def test_row_11_decay_pulls_the_weights_to_zero(trained: Any) -> None:
    norms = []
    for decay in (0.0, 5.0):
        run = trained(
            weight_decay=decay,
            learning_rate=1e-2,
            max_steps=8,
            lr_scheduler_type="constant",
        )
        norms.append(sum(float(v.norm()) for k, v in run.adapter().items() if "lora_A" in k))
    assert norms[1] < 0.8 * norms[0]


@pytest.mark.parametrize("optim", ["adam", "sgd", "adafactor", "muon"])
def test_row_12_each_optimizer_gives_its_own_weights(trained: Any, optim: str) -> None:
    reference = trained(max_steps=3, learning_rate=1e-3, weight_decay=0.1)
    other = trained(max_steps=3, learning_rate=1e-3, weight_decay=0.1, optim=optim)
    ours, theirs = reference.adapter(), other.adapter()
    assert any(float((ours[name] - theirs[name]).abs().max()) > 1e-6 for name in ours)
    assert other.value("optim") == optim


@pytest.mark.parametrize(
    "changes",
    [{"adam_beta1": 0.5}, {"adam_beta2": 0.9}, {"adam_epsilon": 1e-2}, {"max_grad_norm": 1e-4}],
    ids=str,
)
def test_row_12_adam_s_constants_and_clipping_are_in_force(
    trained: Any, changes: dict[str, float]
) -> None:
    common = {"max_steps": 4, "learning_rate": 1e-2, "warmup_steps": 0}
    if "max_grad_norm" in changes:
        common["optim"] = "sgd"  # Adam's own division hides the norm
    reference, other = trained(**common), trained(**common, **changes)
    ours, theirs = reference.adapter(), other.adapter()
    assert any(float((ours[name] - theirs[name]).abs().max()) > 1e-7 for name in ours)


def test_row_13_each_precision_computes_in_its_format(trained: Any) -> None:
    losses = {
        precision: trained(precision=precision, max_steps=1).losses[0]
        for precision in ("fp32", "bf16", "fp16")
    }
    assert len(set(losses.values())) == 3
    assert all(math.isclose(loss, losses["fp32"], rel_tol=0.02) for loss in losses.values())


def test_row_13_auto_is_decided_by_the_device_s_own_timing(trained: Any) -> None:
    run = trained(precision="auto", max_steps=1)
    decision = run.decision("precision")
    assert decision["origin"] == "measured"
    assert "device.matmul_flops_per_s.fp32" in decision["facts"]
