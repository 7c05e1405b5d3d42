"""A job on a tiny model and ragged rows, and an observer that remembers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from support.batches import ragged_rows
from support.models import packed_model
from support.settings import tiny_settings
from trimtab.data.rows import TokenRow
from trimtab.engine.building import adapted, batching
from trimtab.engine.distributed import ALONE, Ranks
from trimtab.engine.loop import Job, run_updates
from trimtab.engine.observer import Silent
from trimtab.engine.optimizer import make_optimizer
from trimtab.engine.precision import LossScale
from trimtab.engine.schedule import make_schedule
from trimtab.engine.state import TrainingState
from trimtab.models.adapters import Model
from trimtab.models.sharding import shard
from trimtab.planning.recipe import Recipe
from trimtab.runs.records import EvaluationRecord, EventRecord, UpdateRecord


class Memory(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.updates: list[UpdateRecord] = []
        self.evaluations: list[EvaluationRecord] = []
        self.events: list[EventRecord] = []

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        self.updates.append(record)

    def evaluated(self, record: EvaluationRecord) -> None:
        self.evaluations.append(record)

    def happened(self, event: EventRecord) -> None:
        self.events.append(event)


def tiny_job(
    checkpoints: Path,
    *,
    train_rows: Sequence[TokenRow] | None = None,
    eval_rows: Sequence[TokenRow] = (),
    model: Model | None = None,
    ranks: Ranks = ALONE,
    **changes: Any,
) -> Job:
    """A job with the tiny settings changed as given; `model` is sharded where `ranks` are."""
    settings = tiny_settings(**changes)
    if model is None:
        torch.manual_seed(settings.seed)
        model = adapted(packed_model(), settings)
    if not ranks.holds_replica:
        shard(model, torch.device("cpu"))
    return Job(
        settings=settings,
        model=model,
        optimizer=make_optimizer(model, settings),
        schedule=make_schedule(settings),
        device=torch.device("cpu"),
        train_rows=ragged_rows(range(3, 27)) if train_rows is None else train_rows,
        eval_rows=eval_rows,
        batching=batching(settings, ranks),
        checkpoints=checkpoints,
        ranks=ranks,
    )


def first_state(job: Job) -> TrainingState:
    scale = LossScale() if job.settings.precision == "fp16" else None
    return TrainingState(Recipe.of(job.settings), loss_scale=scale)


def run_to_end(job: Job, state: TrainingState | None = None) -> tuple[TrainingState, Memory]:
    """Run the job; returns its state and what was observed."""
    memory = Memory()
    state = state or first_state(job)
    run_updates(job, state, memory, lambda: False)
    return state, memory


def weights_of(model: Model) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in model.named_parameters()}
