"""The order of a run: updates, evaluations, checkpoints. Arithmetic is the step's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from trimtab.data.batches import Batching, eval_batches
from trimtab.data.rows import TokenRow
from trimtab.data.updates import Update, updates
from trimtab.engine import checkpoint
from trimtab.engine.distributed import ALONE, Ranks
from trimtab.engine.evaluation import Evaluation, evaluate
from trimtab.engine.guard import judge_held_out_loss
from trimtab.engine.memory import give_back_freed_memory, peak_memory_bytes
from trimtab.engine.observer import Observer
from trimtab.engine.optimizer import OptimizerSet
from trimtab.engine.random_states import random_states, set_random_states
from trimtab.engine.schedule import Schedule
from trimtab.engine.state import TrainingState
from trimtab.engine.step import OptimizerRanOutOfMemory, StepResult, training_step
from trimtab.engine.stops import MemoryPhase, RanOutOfMemory, StopRequested, UpdateStopped
from trimtab.models.adapters import Model
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.planning.settings import Settings
from trimtab.runs.checkpoints import checkpoint_name, retire
from trimtab.runs.records import EvaluationRecord, EventRecord, UpdateRecord


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that one run's updates need on one of its ranks, in one precision.

    Where `checkpoints` is None nothing is saved.
    """

    settings: Settings
    model: Model
    optimizer: OptimizerSet
    schedule: Schedule
    device: torch.device
    train_rows: Sequence[TokenRow]
    eval_rows: Sequence[TokenRow]
    batching: Batching
    checkpoints: Path | None
    ranks: Ranks = ALONE


def run_updates(
    job: Job, state: TrainingState, observer: Observer, stop_requested: Callable[[], bool]
) -> None:
    """Train until the settings' number of updates is done; `state` is brought forward in place.

    Raises UpdateStopped where the guard says so, RanOutOfMemory, and StopRequested after saving;
    `state` then stands at the end of the last update that was applied, random states included, and
    the same call goes on from there. On every rank it is the same that ends it, since each learns
    of it from all: a stop that one rank was asked for holds for all, at the same update.
    """
    num_steps = job.settings.num_train_steps
    if state.evaluation_is_due or (state.num_updates == 0 and state.base_eval_loss is None):
        _evaluate(job, state, observer, stop_requested)
    stream = updates(job.train_rows, job.batching, state.position)
    is_first = True
    while state.num_updates < num_steps:
        started = time.perf_counter()
        update = next(stream)
        rate = job.schedule.rate(state.num_updates)
        if update.passed_over:
            observer.happened(_passed_over(update, state.num_updates + 1))
        result = _applied_step(job, state, update, rate, observer)
        seconds = time.perf_counter() - started
        state.num_updates += 1
        state.epoch = update.epoch
        state.position = update.position
        _count(state, result, seconds, is_timed=not is_first)
        is_first = False
        observer.updated(_update_record(job, state, update, result, rate, seconds), num_steps)
        is_last = state.num_updates == num_steps
        if is_last or _due(state.num_updates, job.settings.eval_steps):
            _evaluate(job, state, observer, stop_requested)
        stops = job.ranks.any(stop_requested())
        if is_last or stops or _due(state.num_updates, job.settings.save_steps):
            save(job, state, observer)
        if stops and not is_last:
            raise StopRequested


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _applied_step(
    job: Job, state: TrainingState, update: Update, learning_rate: float, observer: Observer
) -> StepResult:
    """The step on this update's rows; where it stops, nothing of it is left but what was told."""
    job.model.train()
    drawn_before = random_states(job.ranks)
    phase: MemoryPhase = "update"
    try:
        return _step_at_a_scale_that_fits(job, state, update, learning_rate, observer)
    except UpdateStopped:
        set_random_states(drawn_before)
        raise
    except OptimizerRanOutOfMemory:
        phase = "optimizer step"
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Raised out here and not while handling the error, whose traceback keeps activations alive.
    job.optimizer.zero_grad()
    # Beside masters, the model's own weights may hold a gradient that was not handed over.
    job.model.zero_grad(set_to_none=True)
    set_random_states(drawn_before)
    give_back_freed_memory(job.device)
    largest = max(update.micro_batches, key=lambda batch: batch.num_tokens, default=None)
    raise RanOutOfMemory(
        phase,
        state.num_updates + 1,
        update.row_ids,
        num_tokens=0 if largest is None else largest.num_tokens,
        num_scored=0 if largest is None else largest.num_trainable_tokens,
    )


def _step_at_a_scale_that_fits(
    job: Job, state: TrainingState, update: Update, learning_rate: float, observer: Observer
) -> StepResult:
    """The step, taken again on the same rows at a lower loss scale while fp16 overflows."""
    watch = state.guard.watching(
        state.recipe.precision,
        num_examples=len(update.row_ids),
        num_trainable_tokens=update.num_trainable_tokens,
    )
    while True:
        result = training_step(
            job.model,
            update.micro_batches,
            job.optimizer,
            learning_rate=learning_rate,
            max_grad_norm=job.settings.max_grad_norm,
            precision=job.settings.precision,
            device=job.device,
            loss_scale=state.loss_scale,
            accepts_loss=watch.accepts_loss,
            ranks=job.ranks,
        )
        verdict = watch.judge(result, state.loss_scale)
        step = state.num_updates + 1
        if not result.is_finite:
            observer.happened(_skipped(result, step, update, state))
        if verdict.fault is not None:
            raise UpdateStopped(
                verdict.fault,
                verdict.reason,
                step,
                update.row_ids,
                next_position=update.position,
                epoch=update.epoch,
            )
        if result.applied:
            return result


def _passed_over(update: Update, step: int) -> EventRecord:
    """Rows that turned out to have nothing to train on."""
    rows = [f"{row.where} ({row.reason})" for row in update.passed_over]
    return EventRecord("rows passed over", step, {"num_rows": len(rows), "rows": rows})


def _skipped(result: StepResult, step: int, update: Update, state: TrainingState) -> EventRecord:
    return EventRecord(
        "update skipped",
        step,
        {
            "loss": result.loss,
            "grad_norm": result.grad_norm,
            "next_loss_scale": None if state.loss_scale is None else state.loss_scale.scale,
            "row_ids": list(update.row_ids),
        },
    )


def _count(state: TrainingState, result: StepResult, seconds: float, *, is_timed: bool) -> None:
    totals = state.totals
    totals.num_tokens += result.num_tokens
    totals.num_trainable_tokens += result.num_trainable_tokens
    totals.loss_nats += result.loss * result.num_trainable_tokens
    totals.run_seconds += seconds
    if is_timed:
        totals.timed_tokens += result.num_tokens
        totals.timed_seconds += seconds


def _update_record(
    job: Job,
    state: TrainingState,
    update: Update,
    result: StepResult,
    learning_rate: float,
    seconds: float,
) -> UpdateRecord:
    norm = result.first_micro_batch_grad_norm
    return UpdateRecord(
        step=state.num_updates,
        epoch=state.epoch,
        loss=result.loss,
        num_tokens=result.num_tokens,
        num_trainable_tokens=result.num_trainable_tokens,
        learning_rate=learning_rate,
        grad_norm=result.grad_norm,
        seconds=seconds,
        tokens_per_s=result.num_tokens / seconds,
        peak_memory_bytes=peak_memory_bytes(job.device),
        num_examples=len(update.row_ids),
        first_micro_batch_num_examples=(
            None if norm is None else len(update.micro_batches[0].row_ids)
        ),
        first_micro_batch_grad_norm=norm,
    )


def _evaluate(
    job: Job, state: TrainingState, observer: Observer, stop_requested: Callable[[], bool]
) -> None:
    """Measure the held-out loss, and keep the weights where it is the lowest yet.

    Raises UpdateStopped where it is no sound number, RanOutOfMemory, and StopRequested, after
    saving what there is, where a stop is asked for meanwhile.
    """
    if not job.eval_rows or job.settings.eval_strategy == "no":
        return
    state.evaluation_is_due = True
    measured = _held_out_loss(job, state, observer, stop_requested)
    state.evaluation_is_due = False
    loss = measured.eval_loss
    state.totals.run_seconds += measured.seconds
    observer.evaluated(
        EvaluationRecord(state.num_updates, loss, measured.num_tokens, measured.seconds)
    )
    verdict = judge_held_out_loss(loss, state.recipe.precision)
    if verdict.fault is not None:
        state.evaluation_is_due = True
        raise UpdateStopped(verdict.fault, verdict.reason, state.num_updates, ())
    if state.base_eval_loss is None and state.num_updates == 0:
        state.base_eval_loss = loss
    state.eval_loss = loss
    is_trained = state.num_updates > 0
    if is_trained and (state.best_eval_loss is None or loss < state.best_eval_loss):
        state.best_eval_loss = loss
        state.best_step = state.num_updates
        if job.checkpoints is not None and state.num_updates < job.settings.num_train_steps:
            job.optimizer.for_evaluation()
            checkpoint.save_best(job.checkpoints, job.optimizer, state.num_updates, job.ranks)
            job.optimizer.for_training()


def _held_out_loss(
    job: Job, state: TrainingState, observer: Observer, stop_requested: Callable[[], bool]
) -> Evaluation:
    def advanced(num_tokens: int) -> None:
        observer.advanced(num_tokens)
        if job.ranks.any(stop_requested()) and state.num_updates < job.settings.num_train_steps:
            raise StopRequested

    observer.activity("held-out loss", sum(row.num_tokens for row in job.eval_rows))
    job.optimizer.for_evaluation()
    measured: Evaluation | None = None
    try:
        measured = evaluate(
            job.model,
            eval_batches(job.eval_rows, job.settings.per_device_eval_batch_size, job.batching),
            precision=job.settings.precision,
            device=job.device,
            on_tokens=advanced,
            ranks=job.ranks,
        )
    except StopRequested:
        job.optimizer.for_training()
        if state.num_updates > 0:
            save(job, state, observer)
        raise
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    finally:
        job.optimizer.for_training()
        observer.activity_done()
    if measured is None:
        give_back_freed_memory(job.device)
        raise RanOutOfMemory("held-out pass", state.num_updates)
    return measured


def save(job: Job, state: TrainingState, observer: Observer) -> None:
    """Write the checkpoint of the last applied update, and tell it; older ones retire."""
    if job.checkpoints is None:
        return
    started = time.perf_counter()
    folder = job.checkpoints / checkpoint_name(state.num_updates)
    checkpoint.save_checkpoint(folder, job.optimizer, state, job.ranks)
    if not job.ranks.is_first:
        return
    settings = job.settings
    # A rewind's target, which checkpoints of interruptions must not push out.
    spared_every = settings.save_steps if settings.on_loss_spike == "rewind" else 0
    retire(job.checkpoints, settings.save_total_limit, spared_every=spared_every)
    checkpoint.retire_best(job.checkpoints, state.best_step)
    observer.happened(
        EventRecord(
            "checkpoint saved",
            state.num_updates,
            {
                "folder": folder.name,
                "seconds": time.perf_counter() - started,
                "bytes": checkpoint.tensor_bytes(folder),
            },
        )
    )
