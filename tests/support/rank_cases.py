"""What pairs of ranks are asked to do; each function runs in both processes at once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from support.batches import ragged_rows
from support.jobs import Memory, first_state, run_to_end, tiny_job, weights_of
from support.tiny import tiny_model
from trimtab.engine import step
from trimtab.engine.building import adapted
from trimtab.engine.checkpoint import load_checkpoint, save_checkpoint
from trimtab.engine.distributed import ALONE, Ranks
from trimtab.engine.loop import Job, run_updates
from trimtab.engine.stops import RanOutOfMemory, StopRequested, UpdateStopped
from trimtab.models.loading import take_packed_attention
from trimtab.models.sharding import whole

EVAL_LENGTHS = (5, 17, 9, 30, 3, 12, 21)
TRAIN_LENGTHS = range(3, 25)
"""22 rows: with 8 an update, the third update of an epoch has 6, in a micro-batch too few."""


def case_job(ranks: Ranks, checkpoints: str, **changes: Any) -> Job:
    """The job of a case on ragged rows; a whole update is 8 rows, whatever the ranks."""
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4 // ranks.num_ranks,
        "num_ranks": ranks.num_ranks,
        "global_batch_size": 8,
        "num_train_steps": 7,
        "eval_steps": 3,
        "max_length": 32,
        "weight_decay": 0.1,
        "learning_rate": 3e-3,
        "parallelism": "shard" if ranks.shards else "replicate",
        **changes,
    }
    lengths = settings.pop("train_lengths", TRAIN_LENGTHS)
    model = tiny_model()
    take_packed_attention(model)
    torch.manual_seed(0)
    from support.settings import tiny_settings

    return tiny_job(
        Path(checkpoints),
        train_rows=ragged_rows(lengths),
        eval_rows=ragged_rows(EVAL_LENGTHS, seed=9),
        model=adapted(model.train(), tiny_settings(**settings)),
        ranks=ranks,
        **settings,
    )


def end_of(job: Job, memory: Memory) -> dict[str, Any]:
    """What a run came to; whole weights, as lists."""
    weights = {name: whole(tensor).tolist() for name, tensor in weights_of(job.model).items()}
    return {
        "updates": [asdict(record) for record in memory.updates],
        "evaluations": [record.eval_loss for record in memory.evaluations],
        "weights": weights,
    }


def whole_run(ranks: Ranks, checkpoints: str, **changes: Any) -> dict[str, Any]:
    job = case_job(ranks, checkpoints, **changes)
    _, memory = run_to_end(job)
    return end_of(job, memory)


def interrupted_run(
    ranks: Ranks, checkpoints: str, after: int, by: int, **changes: Any
) -> dict[str, Any]:
    """A run that rank `by` is asked to stop after an update; it saves there."""
    job, memory = case_job(ranks, checkpoints, **changes), Memory()
    state = first_state(job)
    stopped = False
    try:
        run_updates(job, state, memory, lambda: ranks.rank == by and len(memory.updates) == after)
    except StopRequested:
        stopped = True
    return {"stopped": stopped, "num_updates": state.num_updates, **end_of(job, memory)}


def resumed_run(ranks: Ranks, checkpoints: str, step: int, **changes: Any) -> dict[str, Any]:
    job = case_job(ranks, checkpoints, **changes)
    folder = Path(checkpoints) / f"step-{step:06d}"
    state = load_checkpoint(folder, job.optimizer, seed=42, ranks=ranks)
    _, memory = run_to_end(job, state)
    return end_of(job, memory)


def struck_run(
    ranks: Ranks, checkpoints: str, what: str, on: int, update: int, **changes: Any
) -> dict[str, Any]:
    """A run in which one rank's loss is NaN, or its memory runs out, in one update."""
    job, memory = case_job(ranks, checkpoints, **changes), Memory()
    state = first_state(job)
    true_loss = step.summed_loss
    told: dict[str, Any] = {}

    def loss(model: Any, batch: Any) -> Any:
        value = true_loss(model, batch)
        if ranks.rank == on and state.num_updates == update and not told:
            if what == "memory":
                raise MemoryError("no memory left")
            return value * float("nan")
        return value

    step.summed_loss = loss  # type: ignore[attr-defined]
    try:
        run_updates(job, state, memory, lambda: False)
    except UpdateStopped as stopped:
        told = {"fault": stopped.fault, "step": stopped.step, "row_ids": list(stopped.row_ids)}
    except RanOutOfMemory as stopped:
        told = {"fault": stopped.phase, "step": stopped.step, "row_ids": list(stopped.row_ids)}
    finally:
        step.summed_loss = true_loss  # type: ignore[attr-defined]
    at_stop = end_of(job, memory)["weights"]
    if told and what == "memory":
        run_updates(job, state, memory, lambda: False)
    return {"told": told, "at_stop": at_stop, **end_of(job, memory)}


def saved_on_one(checkpoints: str, after: int, **changes: Any) -> None:
    """A run on one rank, saved after an update."""
    job = case_job(ALONE, checkpoints, **changes)
    memory, state = Memory(), None
    state = first_state(job)
    try:
        run_updates(job, state, memory, lambda: len(memory.updates) == after)
    except StopRequested:
        return
    save_checkpoint(Path(checkpoints) / "never", job.optimizer, state)
