from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from support.batches import ragged_rows
from support.jobs import Memory, first_state, run_to_end, tiny_job, weights_of

from trimtab.engine.checkpoint import load_checkpoint
from trimtab.engine.loop import run_updates
from trimtab.engine.stops import StopRequested, UpdateStopped
from trimtab.runs.checkpoints import newest_verified, step_checkpoints
from trimtab.runs.manifest import verify


def test_counts_mean_updates_and_epochs(tmp_path: Path) -> None:
    """24 rows, 4 a micro-batch, 2 micro-batches an update: an epoch is 3 updates."""
    job = tiny_job(tmp_path, gradient_accumulation_steps=2, global_batch_size=8, num_train_steps=6)
    state, memory = run_to_end(job)
    assert [record.step for record in memory.updates] == [1, 2, 3, 4, 5, 6]
    assert [record.epoch for record in memory.updates] == pytest.approx(
        [1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2]
    )
    assert state.totals.num_tokens == 2 * sum(row.num_tokens for row in job.train_rows)
    assert sum(record.num_tokens for record in memory.updates) == state.totals.num_tokens


def test_the_rate_moves_once_an_update_whatever_the_accumulation(tmp_path: Path) -> None:
    job = tiny_job(
        tmp_path,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=4,
        num_train_steps=5,
        warmup_steps=2,
    )
    _, memory = run_to_end(job)
    assert [record.learning_rate for record in memory.updates] == list(job.schedule.rates)


def test_updates_record_what_the_noise_scale_is_estimated_from(tmp_path: Path) -> None:
    """22 rows, 4 a micro-batch, 2 micro-batches an update: the third update has 6."""
    changes = {"train_rows": ragged_rows(range(3, 25)), "num_train_steps": 3}
    job = tiny_job(
        tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2, **changes
    )
    _, memory = run_to_end(job)
    assert [one.num_examples for one in memory.updates] == [8, 8, 6]
    assert [one.first_micro_batch_num_examples for one in memory.updates] == [4, 4, 4]
    for one in memory.updates:
        assert one.first_micro_batch_grad_norm is not None
        assert one.first_micro_batch_grad_norm > 0.5 * one.grad_norm

    whole = tiny_job(tmp_path, per_device_train_batch_size=8, **changes)
    _, memory = run_to_end(whole)
    assert [one.num_examples for one in memory.updates] == [8, 8, 6]
    assert {one.first_micro_batch_num_examples for one in memory.updates} == {None}
    assert {one.first_micro_batch_grad_norm for one in memory.updates} == {None}


def test_accumulation_gives_the_same_run(tmp_path: Path) -> None:
    ends = []
    for size, accumulation in ((8, 1), (2, 4), (1, 8)):
        job = tiny_job(
            tmp_path / str(size),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            global_batch_size=8,
            num_train_steps=6,
            optim="sgd",
            learning_rate=0.1,
        )
        run_to_end(job)
        ends.append(weights_of(job.model))
    for other in ends[1:]:
        for name, weight in ends[0].items():
            assert torch.allclose(weight, other[name], atol=1e-6)


def test_training_learns(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, num_train_steps=60, learning_rate=1e-2)
    _, memory = run_to_end(job)
    assert memory.updates[-1].loss < 0.8 * memory.updates[0].loss


def test_evaluation_comes_before_every_so_often_and_at_the_end(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, eval_rows=ragged_rows(seed=9), eval_steps=3, num_train_steps=7)
    state, memory = run_to_end(job)
    assert [record.step for record in memory.evaluations] == [0, 3, 6, 7]
    assert state.base_eval_loss == memory.evaluations[0].eval_loss
    trained = memory.evaluations[1:]
    assert state.best_eval_loss == min(record.eval_loss for record in trained)


def test_no_evaluation_where_none_is_wanted(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, eval_rows=ragged_rows(), eval_strategy="no", num_train_steps=2)
    _, memory = run_to_end(job)
    assert memory.evaluations == []


def test_the_best_weights_are_kept_while_later_ones_are_worse(tmp_path: Path) -> None:
    job = tiny_job(
        tmp_path,
        eval_rows=ragged_rows(seed=9),
        eval_steps=1,
        num_train_steps=12,
        learning_rate=3e-2,
        lr_scheduler_type="constant",
    )
    state, memory = run_to_end(job)
    losses = {record.step: record.eval_loss for record in memory.evaluations[1:]}
    assert state.best_step == min(losses, key=losses.__getitem__)
    assert state.best_step < 12
    (kept,) = tmp_path.glob("best-*")
    assert kept.name == f"best-{state.best_step:06d}"
    assert verify(kept) == ()


def test_a_non_finite_update_stops_names_its_rows_and_leaves_the_weights(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, num_train_steps=4)
    with torch.no_grad():
        job.model.get_input_embeddings().weight[8] = math.nan
    before = weights_of(job.model)
    memory = Memory()
    with pytest.raises(UpdateStopped) as stopped:
        run_updates(job, first_state(job), memory, lambda: False)
    assert stopped.value.fault == "not finite"
    assert len(stopped.value.row_ids) == 4
    assert memory.events[-1].details["row_ids"] == list(stopped.value.row_ids)
    after = weights_of(job.model)
    assert all(torch.equal(before[n].nan_to_num(), after[n].nan_to_num()) for n in before)


def test_a_rate_of_1000_is_stopped(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, num_train_steps=40, learning_rate=1e3, lr_scheduler_type="constant")
    with pytest.raises(UpdateStopped) as stopped:
        run_updates(job, first_state(job), Memory(), lambda: False)
    assert stopped.value.step < 12


def test_an_fp16_overflow_takes_the_same_rows_again_at_a_lower_scale(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, precision="fp16", num_train_steps=3)
    state = first_state(job)
    assert state.loss_scale is not None
    state.loss_scale.scale = 2.0**27
    memory = Memory()
    run_updates(job, state, memory, lambda: False)
    skipped = [event for event in memory.events if event.event == "update skipped"]
    assert skipped[0].step == 1
    assert [record.step for record in memory.updates] == [1, 2, 3]
    assert [record.learning_rate for record in memory.updates] == list(job.schedule.rates)
    assert [record.epoch for record in memory.updates] == pytest.approx([4 / 24, 8 / 24, 12 / 24])


def test_a_stop_saves_at_the_update_s_end(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, num_train_steps=9)
    memory = Memory()
    with pytest.raises(StopRequested):
        run_updates(job, first_state(job), memory, lambda: len(memory.updates) == 4)
    newest, refused = newest_verified(tmp_path)
    assert newest is not None
    assert newest.name == "step-000004"
    assert refused == ()


def test_checkpoints_come_every_save_steps_and_old_ones_go(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, num_train_steps=9, save_steps=2, save_total_limit=2)
    run_to_end(job)
    assert [path.name for path in step_checkpoints(tmp_path)] == ["step-000008", "step-000009"]


RESUMED = [
    {"method": "full"},
    {"method": "lora", "lora_dropout": 0.1},
    {"method": "lora", "packing": True, "max_length": 32, "gradient_accumulation_steps": 2},
    {"method": "full", "precision": "bf16", "weight_decay": 0.1},
    {"method": "full", "optim": "muon"},
    {"method": "full", "optim": "adafactor"},
    {"method": "lora", "precision": "fp16"},
]


@pytest.mark.parametrize("changes", RESUMED, ids=str)
def test_a_resumed_run_ends_bitwise_as_the_uninterrupted_one(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    common = {"num_train_steps": 12, "per_device_train_batch_size": 2, "save_steps": 5}
    whole = tiny_job(tmp_path / "whole", eval_rows=ragged_rows(seed=3), **common, **changes)
    torch.manual_seed(1)
    _, expected = run_to_end(whole)

    cut = tiny_job(tmp_path / "cut", eval_rows=ragged_rows(seed=3), **common, **changes)
    torch.manual_seed(1)
    memory = Memory()
    with pytest.raises(StopRequested):
        run_updates(cut, first_state(cut), memory, lambda: len(memory.updates) == 7)

    later = tiny_job(tmp_path / "cut", eval_rows=ragged_rows(seed=3), **common, **changes)
    torch.manual_seed(99)
    newest, _ = newest_verified(tmp_path / "cut")
    assert newest is not None
    state = load_checkpoint(newest, later.optimizer)
    _, rest = run_to_end(later, state)

    losses = [record.loss for record in [*memory.updates, *rest.updates]]
    assert losses == [record.loss for record in expected.updates]
    for name, weight in weights_of(whole.model).items():
        assert torch.equal(weight, weights_of(later.model)[name]), name
