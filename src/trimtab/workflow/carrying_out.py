"""Carry out a session: from its start or a checkpoint to what is handed over."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from trimtab.data.updates import within_epoch
from trimtab.engine.building import new_loss_scale
from trimtab.engine.checkpoint import STATE, load_checkpoint
from trimtab.engine.loop import Job, save
from trimtab.engine.memory import give_back_freed_memory
from trimtab.engine.random_states import seed_of_rank
from trimtab.engine.state import TrainingState
from trimtab.errors import ConfigError, DoesNotFit
from trimtab.models.foreign import first_sentence
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.planning.recipe import Recipe
from trimtab.planning.rules.rank_share import shared_by
from trimtab.runs.atomic import write_json
from trimtab.runs.folder import check_room_on_disk
from trimtab.runs.records import RunSummary
from trimtab.workflow.describing import data_record
from trimtab.workflow.handing_over import hand_over
from trimtab.workflow.jobs import make_job
from trimtab.workflow.outcome import told_outcome
from trimtab.workflow.recovering import train_through
from trimtab.workflow.samples import answers
from trimtab.workflow.session import Progress, Session
from trimtab.workflow.stopping import stop_at_update_end

ADAM_STATES = 2


def progress_from(
    session: Session, checkpoint: Path | None, changed: Sequence[str] = ()
) -> Progress:
    """Job and state as they were saved, or as a run begins.

    The recipe is that of the ranks there are now. Where something has `changed` since, settings of
    these names are in force, and the checkpoint is saved again so. Raises ConfigError where what
    was saved does not fit the plan or the number of ranks.
    """
    if checkpoint is None:
        state = first_state(session)
        job = prepare(session, state.recipe)
        _begin_peak_of_updates(job.device)
        return Progress(job, state)
    record = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    saved = Recipe(**record["recipe"]).taking(session.settings, set(changed))
    recipe = shared_by(saved, session.ranks.num_ranks)
    settings = recipe.applied_to(session.settings)
    job = make_job(settings, session.materials, session.rows, session.run, session.ranks)
    try:
        state = load_checkpoint(checkpoint, job.optimizer, seed=settings.seed, ranks=session.ranks)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"what was saved does not fit what the run has become: {first_sentence(error)}",
            where=str(checkpoint),
            hint="Put the plan and the libraries back as they were.",
        ) from error
    if state.recipe.precision != recipe.precision:
        state.loss_scale = new_loss_scale(recipe.precision)
    state.recipe = recipe
    if changed:
        state.position = within_epoch(state.position, job.train_rows, job.batching)
        # At once: the next resume, after a kill, finds nothing that has changed.
        save(job, state, session.observer)
    _begin_peak_of_updates(job.device)
    return Progress(job, state)


def first_state(session: Session) -> TrainingState:
    recipe = shared_by(Recipe.of(session.settings), session.ranks.num_ranks)
    return TrainingState(recipe, loss_scale=new_loss_scale(recipe.precision))


def prepare(session: Session, recipe: Recipe) -> Job:
    """Everything before the first update: the data's record, the disk, the base's answers."""
    ranks = session.ranks
    session.observer.activity("loading the model")
    if ranks.is_first:
        write_json(session.run.data_json, data_record(session.materials, session.rows).to_json())
    settings = recipe.applied_to(session.settings)
    job = make_job(settings, session.materials, session.rows, session.run, ranks)
    session.observer.activity_done()
    if ranks.is_first:
        _check_disk(session, job)
    if session.prompts and (ranks.is_first or not ranks.holds_replica):
        session.observer.activity("asking the base model")
        base = answers(job.model, session.materials, session.prompts, session.settings)
        session.note_samples([*base], [None] * len(base))
        session.observer.activity_done()
    # Sampling and set-up must not move what dropout will draw.
    torch.manual_seed(seed_of_rank(session.settings.seed, ranks.rank))
    return job


def _begin_peak_of_updates(device: torch.device) -> None:
    """What loading needed is no part of the peak that was planned for them."""
    give_back_freed_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _check_disk(session: Session, job: Job) -> None:
    trainable_bytes = sum(each.numel() * each.element_size() for each in job.optimizer.parameters)
    num_checkpoints = session.settings.save_total_limit + 1
    check_room_on_disk(
        session.run.root, trainable_bytes * (num_checkpoints * (1 + ADAM_STATES) + 2)
    )


def carry_out(session: Session, progress: Progress) -> RunSummary:
    """The updates that are left, then handing over; the status on disk is true at any moment."""

    def told() -> None:
        session.observer.noted("Stopping once this is saved; again to abort at once.")

    with _closing_tracker(session), told_outcome(session, progress):
        session.tracker.open()
        with stop_at_update_end(told) as stop_requested:
            train_through(session, progress, stop_requested)
            return hand_over(session, progress)


@contextmanager
def _closing_tracker(session: Session) -> Iterator[None]:
    try:
        yield
    finally:
        session.tracker.finish()


@contextmanager
def told_memory_errors() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DoesNotFit(
            "the memory ran out before training could begin.",
            hint="Take a smaller model or max_length, or precision: bf16 with method: lora.",
        ) from error
