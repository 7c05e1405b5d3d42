"""A bad number never reaches the weights: sha256 of weights and optimizer state on both sides."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.faults import cuda_runs_out, digest
from support.jobs import Memory, first_state, run_to_end, tiny_job
from support.runs import tiny_config

import trimtab
from trimtab.data.rows import MicroBatch
from trimtab.engine import step
from trimtab.engine.loop import Job, run_updates
from trimtab.engine.state import TrainingState
from trimtab.engine.stops import RanOutOfMemory, UpdateStopped
from trimtab.models.adapters import Model
from trimtab.workflow import jobs

NUM_GOOD_UPDATES = 21
MICRO_BATCHES = 2
Poison = Callable[[torch.Tensor], torch.Tensor]


class InfiniteGradient(torch.autograd.Function):
    """The loss as it is, with a gradient that is infinite."""

    @staticmethod
    def forward(context: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return torch.full_like(gradient, math.inf)


def _infinite_gradient(loss: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = InfiniteGradient.apply(loss)
    return result


def _runs_out(loss: torch.Tensor) -> torch.Tensor:
    cuda_runs_out()
    return loss


FAULTS: dict[str, tuple[Poison, str, str]] = {
    "NaN": (lambda loss: loss * math.nan, "fp32", "not finite"),
    "inf": (lambda loss: loss + math.inf, "bf16", "not finite"),
    "NaN in fp16": (lambda loss: loss * math.nan, "fp16", "not finite"),
    "infinite gradient": (_infinite_gradient, "fp32", "not finite"),
    "infinite gradient in fp16": (_infinite_gradient, "fp16", "overflow persisted"),
    "exactly 0.0": (lambda loss: loss * 0.0, "bf16", "collapsed"),
    "spike": (lambda loss: loss * 40.0, "fp32", "loss spike"),
    "out of memory": (_runs_out, "fp32", ""),
}


def planted(monkeypatch: pytest.MonkeyPatch, poison: Poison, *, micro_batches: set[int]) -> None:
    """Poison the loss of these micro-batches of the update after the good ones, at each attempt."""
    original = step.summed_loss
    num_passes = 0

    def summed_loss(model: Model, batch: MicroBatch) -> torch.Tensor:
        nonlocal num_passes
        update, place = divmod(num_passes, MICRO_BATCHES)
        num_passes += 1
        loss = original(model, batch)
        is_meant = update >= NUM_GOOD_UPDATES and place in micro_batches
        return poison(loss) if is_meant else loss

    monkeypatch.setattr(step, "summed_loss", summed_loss)


def job_in(folder: Path, precision: str) -> Job:
    return tiny_job(
        folder,
        precision=precision,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=MICRO_BATCHES,
        num_train_steps=NUM_GOOD_UPDATES + 4,
        learning_rate=1e-4,
    )


def watched(
    job: Job,
) -> tuple[TrainingState, Memory, Callable[[], str]]:
    """A state, an observer, and what gives the digest after the last update that was applied."""
    digests: list[str] = []

    class Digesting(Memory):
        def updated(self, record: Any, num_steps: int) -> None:
            super().updated(record, num_steps)
            digests.append(digest(job))

    return first_state(job), Digesting(), lambda: digests[-1]


IN_ONE_OF_TWO = FAULTS.keys() - {"exactly 0.0"}
PLANTED = [(name, {0, 1}) for name in FAULTS] + [(name, {1}) for name in sorted(IN_ONE_OF_TWO)]


@pytest.mark.parametrize(("name", "place"), PLANTED, ids=str)
def test_weights_and_optimizer_state_are_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: set[int]
) -> None:
    poison, precision, fault = FAULTS[name]
    job = job_in(tmp_path, precision)
    planted(monkeypatch, poison, micro_batches=place)
    state, memory, last_digest = watched(job)
    stops = UpdateStopped if fault else RanOutOfMemory
    with pytest.raises(stops) as stopped:
        run_updates(job, state, memory, lambda: False)
    if isinstance(stopped.value, UpdateStopped):
        assert stopped.value.fault == fault
    assert digest(job) == last_digest()
    assert stopped.value.step == NUM_GOOD_UPDATES + 1
    assert len(stopped.value.row_ids) == 8
    assert state.num_updates == NUM_GOOD_UPDATES
    assert [one.step for one in memory.updates] == list(range(1, NUM_GOOD_UPDATES + 1))


def test_the_digest_sees_one_changed_bit(tmp_path: Path) -> None:
    job = job_in(tmp_path, "fp32")
    run_to_end(job)
    before = digest(job)
    entries = next(iter(job.optimizer.optimizers[0].state.values()))
    entries["exp_avg"].view(torch.int32).flatten()[0] ^= 1
    assert digest(job) != before


def test_overflowing_gradients_that_end_leave_a_schedule_without_gaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_in(tmp_path, "fp16")
    state = first_state(job)
    original, num_passes = step.summed_loss, 0

    def summed_loss(model: Model, batch: MicroBatch) -> torch.Tensor:
        nonlocal num_passes
        num_passes += 1
        overflows = 5 <= num_passes <= 14
        loss = original(model, batch)
        return _infinite_gradient(loss) if overflows else loss

    monkeypatch.setattr(step, "summed_loss", summed_loss)
    _, memory = run_to_end(job, state)
    assert sum(event.event == "update skipped" for event in memory.events) == 5
    assert [one.learning_rate for one in memory.updates] == list(job.schedule.rates)
    assert state.loss_scale is not None
    assert state.loss_scale.scale == 2.0**11


def test_a_row_without_a_label_is_found_before_any_weight_is_read(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no batch's loss can be 0.0 for want of tokens to train on."""
    lines = [
        {"messages": [{"role": "user", "content": "the question"}, answer]}
        for answer in [{"role": "assistant", "content": "the answer"}] * 24
    ]
    lines[6] = {"messages": [{"role": "user", "content": "a question and no answer"}]}
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    loaded: list[object] = []
    monkeypatch.setattr(jobs, "build_model", lambda *a: loaded.append(a))
    with pytest.raises(trimtab.DataError) as found:
        trimtab.train(tiny_config(tmp_path, tiny_llama_folder))
    assert found.value.exit_code == 3
    assert f"{rows}:7" in str(found.value)
    assert not loaded
