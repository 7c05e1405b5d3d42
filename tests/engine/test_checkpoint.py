"""What a checkpoint keeps, beside what resumed runs show of it (`tests/faults`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.jobs import first_state, run_to_end, tiny_job, weights_of

from trimtab.engine.checkpoint import (
    ledger_sizes,
    load_best,
    remove_best,
    retire_best,
    save_best,
    save_checkpoint,
)
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
        save_checkpoint(folder, job.model, job.optimizer, at_step)

    save_best(checkpoints, job.model, 1)
    save(2, best_step=1)
    save_best(checkpoints, job.model, 3)
    save_best(checkpoints, job.model, 4)
    assert bests(checkpoints) == ["best-000001", "best-000004"]
    assert load_best(checkpoints, job.model, 1) == ()
    save(5, best_step=4)
    retire(checkpoints, 1)
    retire_best(checkpoints, 4)
    assert bests(checkpoints) == ["best-000004"]
    remove_best(checkpoints)
    assert bests(checkpoints) == []


def test_a_checkpoint_tells_how_far_the_ledgers_had_come(tmp_path: Path) -> None:
    job = tiny_job(tmp_path / "checkpoints")
    folder = tmp_path / "checkpoints" / checkpoint_name(1)
    save_checkpoint(folder, job.model, job.optimizer, first_state(job))
    assert ledger_sizes(folder).metrics_bytes == 0
    Ledger(tmp_path / "metrics.jsonl").append({"step": 1})
    save_checkpoint(folder, job.model, job.optimizer, first_state(job))
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
