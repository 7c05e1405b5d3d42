"""Train a plan: from a configuration to what is handed over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from trimtab.engine.building import new_loss_scale
from trimtab.engine.loop import Job
from trimtab.engine.observer import Observer, Silent
from trimtab.engine.state import TrainingState
from trimtab.errors import DataError, DoesNotFit
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.planning.fact import Facts
from trimtab.planning.plan import Plan
from trimtab.planning.recipe import Recipe
from trimtab.probes.rows import rows_digest
from trimtab.runs.atomic import write_json, write_text
from trimtab.runs.folder import (
    RunFolder,
    check_room_on_disk,
    create_run,
    discard_run,
    refuse_taken,
)
from trimtab.runs.lock import run_lock
from trimtab.runs.records import RunSummary
from trimtab.workflow.describing import data_record
from trimtab.workflow.handing_over import hand_over
from trimtab.workflow.jobs import make_job
from trimtab.workflow.outcome import told_outcome
from trimtab.workflow.planning import ConfigLike, PlannedRun, from_plan, plan_run, resolve_config
from trimtab.workflow.provenance import OTHER_ROWS, provenance_of, write_provenance
from trimtab.workflow.recovering import train_through
from trimtab.workflow.samples import answers
from trimtab.workflow.session import Progress, Session, open_session
from trimtab.workflow.stopping import stop_at_update_end
from trimtab.workflow.tracking import refuse_without_library

ADAM_STATES = 2


def train(
    config: ConfigLike | Plan | None = None,
    *,
    options: Sequence[tuple[str, str]] = (),
    observer: Observer | None = None,
) -> RunSummary:
    """Fine-tune as planned; a configuration is planned first.

    The run folder holds everything that happened, and `adapter/` or `model/` the best weights by
    held-out loss (the last, where nothing is held out).

    Raises ConfigError, DataError, DoesNotFit, GuardStop (a bad number; nothing is handed over) or
    Interrupted (saved, resumable); TypeError for options beside a plan, which is decided already.
    """
    observer = observer or Silent()
    with told_memory_errors():
        if isinstance(config, Plan):
            if options:
                raise TypeError("a plan takes no options: make another plan with them")
            planned = from_plan(config, observer)
        else:
            resolved = resolve_config(config, options)
            if resolved.config.output_dir != "auto":
                refuse_taken(Path(resolved.config.output_dir))
            refuse_without_library(resolved.config.report_to)
            planned = plan_run(resolved, observer)
        observer.planned(planned.plan)
        output_dir = Path(planned.plan.settings().output_dir)
        was_there = output_dir.is_dir()
        run = create_run(output_dir)
        with run_lock(run):
            try:
                session, progress = _begin(planned, run, observer)
            except BaseException:
                # Nothing was trained: a folder that looks like a run would be in the way.
                discard_run(run, keep_folder=was_there)
                raise
            return carry_out(session, progress)


def _begin(planned: PlannedRun, run: RunFolder, observer: Observer) -> tuple[Session, Progress]:
    write_text(run.config_yaml, planned.plan.config_yaml)
    write_json(run.plan_json, planned.plan.to_json())
    session = open_session(planned, run, observer)
    _check_rows(session)
    observer.activity("fingerprinting the model")
    write_provenance(run, provenance_of(session))
    observer.activity_done()
    progress = Progress(prepare(session), first_state(session))
    observer.run_opened(run.root, planned.plan)
    return session, progress


def _check_rows(session: Session) -> None:
    planned_digest = Facts().adding(session.plan.facts).value("rows.digest")
    if rows_digest(session.rows.train, session.rows.eval) != planned_digest:
        raise DataError(
            f"{OTHER_ROWS}.",
            where=session.settings.dataset,
            hint="Put them back, or plan and train anew.",
        )


def first_state(session: Session) -> TrainingState:
    recipe = Recipe.of(session.settings)
    return TrainingState(recipe, loss_scale=new_loss_scale(recipe.precision))


def prepare(session: Session) -> Job:
    """Everything before the first update: the data's record, the disk, the base's answers."""
    session.observer.activity("loading the model")
    write_json(session.run.data_json, data_record(session.materials, session.rows).to_json())
    job = make_job(session.settings, session.materials, session.rows, session.run)
    session.observer.activity_done()
    trainable_bytes = sum(each.numel() * each.element_size() for each in job.optimizer.parameters)
    num_checkpoints = session.settings.save_total_limit + 1
    check_room_on_disk(
        session.run.root, trainable_bytes * (num_checkpoints * (1 + ADAM_STATES) + 2)
    )
    if session.prompts:
        session.observer.activity("asking the base model")
        base = answers(job.model, session.materials, session.prompts, session.settings)
        session.note_samples([*base], [None] * len(base))
        session.observer.activity_done()
    if job.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(job.device)
    # Sampling and set-up must not move what dropout will draw.
    torch.manual_seed(session.settings.seed)
    return job


def carry_out(session: Session, progress: Progress) -> RunSummary:
    """The updates that are left, then handing over; the status on disk is true at any moment."""

    def told() -> None:
        session.observer.noted("Stopping once this is saved; again to abort at once.")

    with (
        _closing_tracker(session),
        told_outcome(session, progress),
        stop_at_update_end(told) as stop_requested,
    ):
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
