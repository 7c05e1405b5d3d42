"""What a checkpoint keeps, beside what resumed runs show of it (`tests/faults`)."""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.jobs import first_state, run_to_end, tiny_job, weights_of

from trimtab.engine import optimizer as optimizers
from trimtab.engine.checkpoint import (
    OPTIMIZER,
    OPTIMIZER_SCALARS,
    WEIGHTS,
    ledger_sizes,
    load_best,
    load_checkpoint,
    remove_best,
    retire_best,
    save_best,
    save_checkpoint,
)
from trimtab.engine.loop import Job
from trimtab.planning.settings import Settings
from trimtab.runs.checkpoints import checkpoint_name, retire
from trimtab.runs.ledger import Ledger


def bests(checkpoints: Path) -> list[str]:
    return sorted(path.name for path in checkpoints.glob("best-*"))


def test_the_best_of_a_checkpoint_stays_as_long_as_the_checkpoint(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    job = tiny_job(checkpoints)
    state = first_state(job)

    def save(step: int, best_step: int) -> None:
        at_step = replace(state, num_updates=step, best_step=best_step)
        folder = checkpoints / checkpoint_name(step)
        save_checkpoint(folder, job.optimizer, at_step)

    save_best(checkpoints, job.optimizer, 1)
    save(2, best_step=1)
    save_best(checkpoints, job.optimizer, 3)
    save_best(checkpoints, job.optimizer, 4)
    assert bests(checkpoints) == ["best-000001", "best-000004"]
    assert load_best(checkpoints, job.optimizer, 1) == ()
    save(5, best_step=4)
    retire(checkpoints, 1)
    retire_best(checkpoints, 4)
    assert bests(checkpoints) == ["best-000004"]
    remove_best(checkpoints)
    assert bests(checkpoints) == []


def test_the_best_stay_where_a_checkpoint_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tiny_job(tmp_path / "checkpoints")
    save_best(tmp_path / "checkpoints", job.optimizer, 1)
    folder = tmp_path / "checkpoints" / checkpoint_name(2)
    save_checkpoint(folder, job.optimizer, replace(first_state(job), best_step=1))

    def refused(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as closed:
        closed.setattr(Path, "read_bytes", refused)
        retire_best(tmp_path / "checkpoints", None)
    assert bests(tmp_path / "checkpoints") == ["best-000001"]


def test_a_checkpoint_tells_how_far_the_ledgers_had_come(tmp_path: Path) -> None:
    job = tiny_job(tmp_path / "checkpoints")
    folder = tmp_path / "checkpoints" / checkpoint_name(1)
    save_checkpoint(folder, job.optimizer, first_state(job))
    assert ledger_sizes(folder).metrics_bytes == 0
    Ledger(tmp_path / "metrics.jsonl").append({"step": 1})
    save_checkpoint(folder, job.optimizer, first_state(job))
    sizes = ledger_sizes(folder)
    assert (sizes.metrics_bytes, sizes.events_bytes) == (len(b'{"step": 1}\n'), 0)


@pytest.mark.parametrize("optim", ["adamw", "adamw_schedule_free"])
def test_a_held_out_pass_leaves_the_weights_in_training_as_they_were(
    tmp_path: Path, optim: str
) -> None:
    if optim == "adamw_schedule_free":
        pytest.importorskip("pytorch_optimizer")
    job = tiny_job(tmp_path / "checkpoints", optim=optim, num_train_steps=3)
    run_to_end(job)
    before = weights_of(job.model)
    job.optimizer.for_evaluation()
    averaged = weights_of(job.model)
    job.optimizer.for_training()
    job.optimizer.for_training()
    after = weights_of(job.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    is_same = all(torch.equal(before[name], averaged[name]) for name in before)
    assert is_same is (optim == "adamw")


def test_back_at_the_start_a_method_counts_anew(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_optimizer")
    job = tiny_job(tmp_path / "checkpoints", optim="adamw_schedule_free", num_train_steps=3)
    folder = tmp_path / "checkpoints" / checkpoint_name(0)
    save_checkpoint(folder, job.optimizer, first_state(job))
    run_to_end(job)
    first = weights_of(job.model)
    load_checkpoint(folder, job.optimizer)
    run_to_end(job)
    again = weights_of(job.model)
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize(
    "changes", [{"method": "lora"}, {"method": "full"}, {"method": "full", "precision": "bf16"}]
)
def test_weights_go_there_and_back(changes: dict[str, str], tmp_path: Path) -> None:
    job = tiny_job(tmp_path / "checkpoints", **changes)
    folder = tmp_path / "checkpoints" / checkpoint_name(1)
    save_checkpoint(folder, job.optimizer, first_state(job))
    saved = load_file(folder / WEIGHTS)
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert "lm_head.weight" not in saved  # tied: once, as the embedding
    if changes["method"] == "lora":
        assert all("lora_" in name for name in saved)
    in_the_model = {name: weight.clone() for name, weight in job.model.named_parameters()}
    with torch.no_grad():
        for weight in job.optimizer.parameters:
            weight.add_(1.0)
    job.optimizer.publish()
    assert any(not torch.equal(w, in_the_model[n]) for n, w in job.model.named_parameters())
    load_checkpoint(folder, job.optimizer)
    assert all(torch.equal(w, in_the_model[n]) for n, w in job.model.named_parameters())


def test_weights_of_another_model_change_nothing(tmp_path: Path) -> None:
    job = tiny_job(tmp_path / "checkpoints", method="full")
    folder = tmp_path / "checkpoints" / checkpoint_name(1)
    save_checkpoint(folder, job.optimizer, first_state(job))
    saved = load_file(folder / WEIGHTS)
    before = {name: weight.detach().clone() for name, weight in job.optimizer.weights.items()}
    *_, last = saved
    zeros = {name: torch.zeros_like(tensor) for name, tensor in saved.items()}
    for wrong in (
        {name: tensor for name, tensor in zeros.items() if name != last},
        {**zeros, "another": torch.zeros(1)},
        {**zeros, last: torch.zeros(3)},
        {**zeros, last: zeros[last].bfloat16()},
    ):
        save_file(wrong, folder / WEIGHTS)
        with pytest.raises(ValueError, match="another model"):
            load_checkpoint(folder, job.optimizer)
        assert all(torch.equal(w, before[n]) for n, w in job.optimizer.weights.items())


class NestingAdamW(torch.optim.AdamW):
    """Keeps a map that all weights share, and nests tensors in its state dict, as bitsandbytes."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._map = torch.linspace(0, 1, 16)

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        for entries in self.state.values():
            entries["qmap1"] = self._map
            entries["num_steps"] = int(entries["step"])

    def state_dict(self) -> dict[str, Any]:
        record = super().state_dict()
        record["state"] = {
            index: {
                "num_steps": entries["num_steps"],
                "__quant_state__": {k: v for k, v in entries.items() if k != "num_steps"},
            }
            for index, entries in record["state"].items()
        }
        return record


def nesting_adamw(groups: list[dict[str, Any]], settings: Settings) -> torch.optim.Optimizer:
    return NestingAdamW(groups, lr=settings.learning_rate)


def state_of(optimizer: torch.optim.Optimizer) -> list[tuple[str, Any]]:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return [item for weight in weights for item in sorted(optimizer.state[weight].items())]


def assert_same(one: list[tuple[str, Any]], other: list[tuple[str, Any]]) -> None:
    assert one
    for (name, value), (other_name, other_value) in zip(one, other, strict=True):
        assert name == other_name
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other_value)), name


def assert_goes_on_from_its_checkpoint(tmp_path: Path, **changes: Any) -> None:
    """Weights and state after four updates, with and without a checkpoint in their middle."""
    folder = tmp_path / "checkpoints" / checkpoint_name(2)
    whole = tiny_job(tmp_path / "checkpoints", num_train_steps=4, save_steps=2, **changes)
    run_to_end(whole)
    again = tiny_job(tmp_path / "again" / "checkpoints", num_train_steps=4, **changes)
    state = load_checkpoint(folder, again.optimizer)
    run_to_end(again, state)
    before = weights_of(whole.model)
    assert all(torch.equal(before[name], after) for name, after in weights_of(again.model).items())
    assert_same(state_of(*whole.optimizer.optimizers), state_of(*again.optimizer.optimizers))


def test_state_that_is_nested_and_shared_goes_there_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(optimizers._BUILDERS, "adamw", nesting_adamw)
    assert_goes_on_from_its_checkpoint(tmp_path)


def test_states_in_8_bits_go_there_and_back(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    assert_goes_on_from_its_checkpoint(tmp_path, optim="adamw_8bit", method="full")


def saved_after_one_update(tmp_path: Path, **changes: Any) -> tuple[Job, Path]:
    job = tiny_job(tmp_path / "checkpoints", num_train_steps=1, **changes)
    run_to_end(job)
    return job, tmp_path / "checkpoints" / checkpoint_name(1)


def values_of(optimizer: torch.optim.Optimizer) -> list[tuple[str, Any]]:
    return [(name, torch.as_tensor(value).clone()) for name, value in state_of(optimizer)]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("optim", ["adamw", "adafactor"])
def test_loaded_state_survives_the_truncation_of_its_file(tmp_path: Path, optim: str) -> None:
    job, folder = saved_after_one_update(tmp_path, optim=optim)
    (optimizer,) = job.optimizer.optimizers
    before = values_of(optimizer)
    load_checkpoint(folder, job.optimizer)
    assert str(folder) not in Path("/proc/self/maps").read_text()
    os.truncate(folder / OPTIMIZER, 16)
    assert_same(before, state_of(optimizer))


def test_state_is_not_held_twice_while_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, folder = saved_after_one_update(tmp_path)
    load, num_held = torch.optim.AdamW.load_state_dict, []

    def counting(self: torch.optim.AdamW, record: dict[str, Any]) -> None:
        num_held.append(len(self.state))
        load(self, record)

    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", counting)
    load_checkpoint(folder, job.optimizer)
    assert num_held == [0]


def test_state_of_other_weights_changes_none(tmp_path: Path) -> None:
    job, folder = saved_after_one_update(tmp_path)
    (optimizer,) = job.optimizer.optimizers
    before = values_of(optimizer)
    path = folder / OPTIMIZER_SCALARS
    scalars, state = json.loads(path.read_text()), load_file(folder / OPTIMIZER)
    path.write_text(json.dumps({**scalars, "0/groups": scalars["0/groups"][:1]}))
    with pytest.raises(ValueError, match="other weights"):
        load_checkpoint(folder, job.optimizer)
    path.write_text(json.dumps(scalars))
    save_file({**state, "0/999/exp_avg": torch.zeros(1)}, folder / OPTIMIZER)
    with pytest.raises(ValueError, match="other weights"):
        load_checkpoint(folder, job.optimizer)
    assert_same(before, state_of(optimizer))
