"""Train a plan, resume a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from trimtab.engine.building import new_loss_scale
from trimtab.engine.checkpoint import STATE, load_checkpoint
from trimtab.engine.loop import Job
from trimtab.engine.observer import Observer, Silent
from trimtab.engine.state import TrainingState
from trimtab.errors import ConfigError, DoesNotFit
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.models.saving import trainable_state
from trimtab.planning.plan import Plan
from trimtab.planning.recipe import Recipe
from trimtab.runs.atomic import remove_folder, remove_staged, write_json, write_text
from trimtab.runs.checkpoints import newest_verified
from trimtab.runs.folder import (
    RunFolder,
    check_room_on_disk,
    create_run,
    discard_run,
    open_run,
    refuse_taken,
)
from trimtab.runs.lock import run_lock
from trimtab.runs.records import EventRecord, RunSummary
from trimtab.workflow.describing import data_record
from trimtab.workflow.handing_over import hand_over
from trimtab.workflow.jobs import make_job
from trimtab.workflow.outcome import told_outcome
from trimtab.workflow.planning import ConfigLike, PlannedRun, from_plan, plan_run, resolve_config
from trimtab.workflow.records import read_plan
from trimtab.workflow.recovering import forget_after, train_through
from trimtab.workflow.samples import answers
from trimtab.workflow.session import Progress, Session, open_session
from trimtab.workflow.stopping import stop_at_update_end

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
    with _told_memory_errors():
        if isinstance(config, Plan):
            if options:
                raise TypeError("a plan takes no options: make another plan with them")
            planned = from_plan(config, observer)
        else:
            resolved = resolve_config(config, options)
            if resolved.config.output_dir != "auto":
                refuse_taken(Path(resolved.config.output_dir))
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
            return _carry_out(session, progress)


def resume(run: str | Path, *, observer: Observer | None = None) -> RunSummary:
    """Go on with an interrupted run from its newest checkpoint that verifies, or from its start.

    Nothing is measured or planned anew. Raises as `train` does, and ConfigError where the folder
    is no run, is finished, or holds checkpoints of which none verifies; DataError where the rows
    are not those that were planned.
    """
    observer = observer or Silent()
    folder = open_run(Path(run))
    with run_lock(folder), _told_memory_errors():
        _refuse_finished(folder)
        plan = read_plan(folder)
        remove_staged(folder.checkpoints)
        checkpoint = _newest_checkpoint(folder, observer)
        session = open_session(from_plan(plan, observer), folder, observer)
        observer.run_opened(folder.root, plan)
        if checkpoint is None:
            forget_after(folder, step=-1)
            job = _prepare(session)
            return _carry_out(session, Progress(job, _first_state(session)))
        record = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        settings = Recipe(**record["recipe"]).applied_to(session.settings)
        job = make_job(settings, session.materials, session.rows, folder)
        state = load_checkpoint(checkpoint, job.model, job.optimizer)
        forget_after(folder, step=state.num_updates)
        details = {"from": checkpoint.name}
        session.observer.happened(EventRecord("resumed", state.num_updates, details))
        return _carry_out(session, Progress(job, state))


def _begin(planned: PlannedRun, run: RunFolder, observer: Observer) -> tuple[Session, Progress]:
    write_text(run.config_yaml, planned.plan.config_yaml)
    write_json(run.plan_json, planned.plan.to_json())
    session = open_session(planned, run, observer)
    progress = Progress(_prepare(session), _first_state(session))
    observer.run_opened(run.root, planned.plan)
    return session, progress


def _first_state(session: Session) -> TrainingState:
    recipe = Recipe.of(session.settings)
    return TrainingState(recipe, loss_scale=new_loss_scale(recipe.precision))


def _prepare(session: Session) -> Job:
    """Everything before the first update: the data's record, the disk, the base's answers."""
    session.observer.activity("loading the model")
    write_json(session.run.data_json, data_record(session.materials, session.rows).to_json())
    job = make_job(session.settings, session.materials, session.rows, session.run)
    session.observer.activity_done()
    trainable_bytes = sum(
        each.numel() * each.element_size() for each in trainable_state(job.model).values()
    )
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


def _carry_out(session: Session, progress: Progress) -> RunSummary:
    """The updates that are left, then handing over; the status on disk is true at any moment."""

    def told() -> None:
        session.observer.noted("Stopping once this is saved; again to abort at once.")

    with told_outcome(session, progress), stop_at_update_end(told) as stop_requested:
        train_through(session, progress, stop_requested)
        return hand_over(session, progress)


def _refuse_finished(folder: RunFolder) -> None:
    if not folder.summary_json.is_file():
        return
    summary = RunSummary.from_json(json.loads(folder.summary_json.read_text(encoding="utf-8")))
    if summary.status == "done":
        raise ConfigError(
            "the run is finished; there is nothing to resume.",
            where=str(folder.root),
            hint=f"Its result is in {folder.root / (summary.result or '')}.",
        )


def _newest_checkpoint(folder: RunFolder, observer: Observer) -> Path | None:
    """The checkpoint to go on from; None where there is none at all. Damaged newer ones go."""
    found, refused = newest_verified(folder.checkpoints)
    for one in refused:
        observer.noted(f"Refused {one.path.name}: {'; '.join(one.problems)}.")
    if found is None and refused:
        raise ConfigError(
            "no checkpoint of the run is whole.",
            where=str(folder.checkpoints),
            hint="Start the run again under another output_dir.",
        )
    for one in refused:
        remove_folder(one.path)
    return found


@contextmanager
def _told_memory_errors() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DoesNotFit(
            "the memory ran out before training could begin.",
            hint="Take a smaller model or max_length, or precision: bf16 with method: lora.",
        ) from error
