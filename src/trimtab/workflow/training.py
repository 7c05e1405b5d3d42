"""Train a plan, resume a run; where the engine stops with a reason, ask the planner again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from trimtab.engine.checkpoint import load_best, load_checkpoint, remove_best, save_checkpoint
from trimtab.engine.loop import Job, StopRequested, UpdateStopped, run_updates
from trimtab.engine.observer import Observer, Silent
from trimtab.engine.state import TrainingState
from trimtab.errors import ConfigError, DoesNotFit, GuardStop, Interrupted, TrimtabError
from trimtab.models.saving import save_result, trainable_state
from trimtab.planning.fact import Facts
from trimtab.planning.plan import Plan
from trimtab.planning.rules.fallback import safer_precision
from trimtab.runs.atomic import remove_staged, staged_folder, write_json, write_text
from trimtab.runs.checkpoints import checkpoint_name, newest_verified
from trimtab.runs.folder import RunFolder, check_room_on_disk, create_run, open_run
from trimtab.runs.ledger import Ledger
from trimtab.runs.lock import run_lock
from trimtab.runs.records import EventRecord, RunSummary, Sample
from trimtab.workflow.describing import data_record
from trimtab.workflow.jobs import make_job, new_loss_scale
from trimtab.workflow.planning import ConfigLike, from_plan, plan_run, resolve_config
from trimtab.workflow.samples import answers
from trimtab.workflow.session import Session, open_session
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
    Interrupted (saved, resumable).
    """
    observer = observer or Silent()
    if isinstance(config, Plan):
        planned = from_plan(config, observer)
    else:
        planned = plan_run(resolve_config(config, options), observer)
    observer.planned(planned.plan)
    run = create_run(Path(planned.plan.settings().output_dir))
    with run_lock(run):
        try:
            write_text(run.config_yaml, planned.resolved.to_yaml())
            write_json(run.plan_json, planned.plan.to_json())
            session = open_session(planned, run, observer)
            job = _prepare(session)
        except BaseException:
            # Nothing was trained yet: a folder that looks like a run would only be in the way.
            shutil.rmtree(run.root)
            raise
        return _carry_out(session, job, _first_state(session))


def resume(run: str | Path, *, observer: Observer | None = None) -> RunSummary:
    """Go on with an interrupted run from its newest checkpoint that verifies, or from its start.

    Nothing is measured or planned anew. Raises as `train` does, and ConfigError where the folder
    is no run, is finished, or holds checkpoints of which none verifies.
    """
    observer = observer or Silent()
    folder = open_run(Path(run))
    with run_lock(folder):
        _refuse_finished(folder)
        plan = Plan.from_json(json.loads(folder.plan_json.read_text(encoding="utf-8")))
        planned = from_plan(plan, observer)
        remove_staged(folder.checkpoints)
        checkpoint = _newest_checkpoint(folder, observer)
        session = open_session(planned, folder, observer)
        if checkpoint is None:
            _forget_after(folder, step=-1)
            return _carry_out(session, _prepare(session), _first_state(session))
        precision = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))["precision"]
        settings = replace(session.settings, precision=precision)
        job = make_job(settings, session.materials, session.rows, folder)
        state = load_checkpoint(checkpoint, job.model, job.optimizer)
        _forget_after(folder, step=state.num_updates)
        session.observer.happened(
            EventRecord("resumed", state.num_updates, {"from": checkpoint.name})
        )
        return _carry_out(session, job, state)


def _first_state(session: Session) -> TrainingState:
    return TrainingState(
        precision=session.settings.precision, loss_scale=new_loss_scale(session.settings)
    )


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
        base: list[str | None] = [
            *answers(job.model, session.materials, session.prompts, session.settings)
        ]
        session.note_samples(base, [None] * len(base))
        session.observer.activity_done()
    # Sampling and set-up must not move what dropout will draw.
    torch.manual_seed(session.settings.seed)
    return job


def _carry_out(session: Session, job: Job, state: TrainingState) -> RunSummary:
    """Run the updates that are left and hand over; the status on disk is true at any moment."""
    session.note_status("running", state)
    try:
        job, state = _train_through(session, job, state)
    except UpdateStopped as stopped:
        raise _guard_stop(session, state, stopped) from None
    except (StopRequested, KeyboardInterrupt) as stop:
        raise _interrupted(session, state, saved=isinstance(stop, StopRequested)) from None
    except torch.OutOfMemoryError as error:
        session.note_status("stopped", state, stopped_by="out of memory")
        raise DoesNotFit(
            f"update {state.num_updates + 1} ran out of memory on {session.settings.device}.",
            where=str(session.run.root),
            hint="Set a smaller per_device_train_batch_size (the global batch stays what it is), "
            "activation_checkpointing: full, or a smaller max_length.",
        ) from error
    except TrimtabError as error:
        session.note_status("failed", state, stopped_by=str(error))
        raise
    except Exception as error:
        session.note_status("failed", state, stopped_by=f"{type(error).__name__}: {error}")
        raise
    return _hand_over(session, job, state)


def _train_through(session: Session, job: Job, state: TrainingState) -> tuple[Job, TrainingState]:
    """All updates, in a safer precision where one failed and the planner has another.

    Raises UpdateStopped where it has none, StopRequested when asked to stop and saved.
    """

    def told() -> None:
        session.observer.noted("Stopping when this update ends; once more to abort at once.")

    with stop_at_update_end(told) as stop_requested:
        while True:
            try:
                run_updates(job, state, session.observer, stop_requested)
                return job, state
            except UpdateStopped as stopped:
                job, state = _in_safer_precision(session, job, state, stopped)


def _in_safer_precision(
    session: Session, job: Job, state: TrainingState, stopped: UpdateStopped
) -> tuple[Job, TrainingState]:
    """The same run, one number format safer, with data order and counts kept.

    From the current weights where no bad update was applied; a collapsed loss may be in the
    weights already, so the run then goes back to the newest checkpoint that verifies, or its
    start. Raises `stopped` again where no safer format is left or the fault is no format's.
    """
    decision = (
        None
        if stopped.fault == "diverged"
        else safer_precision(state.precision, stopped.reason, Facts().adding(session.plan.facts))
    )
    if decision is None:
        raise stopped
    session.observer.happened(
        EventRecord(
            "precision changed",
            stopped.step,
            {
                "from": state.precision,
                "to": decision.value,
                "because": decision.because,
                "row_ids": list(stopped.row_ids),
            },
        )
    )
    if stopped.fault == "collapsed":
        checkpoint, _ = newest_verified(session.run.checkpoints)
    else:
        checkpoint = session.run.checkpoints / checkpoint_name(state.num_updates)
        save_checkpoint(checkpoint, job.model, job.optimizer, state)
    settings = replace(job.settings, precision=decision.value)
    safer = make_job(settings, session.materials, session.rows, session.run)
    if checkpoint is None:
        fresh = _first_state(session)
        fresh.base_eval_loss = state.base_eval_loss
    else:
        fresh = load_checkpoint(checkpoint, safer.model, safer.optimizer)
    fresh.precision = decision.value
    fresh.loss_scale = new_loss_scale(settings)
    return safer, fresh


def _hand_over(session: Session, job: Job, state: TrainingState) -> RunSummary:
    """Write the best weights where the user looks for them, with the samples and the summary."""
    settings = session.settings
    job.optimizer.for_evaluation()
    if state.best_step is not None and state.best_step != state.num_updates:
        load_best(session.run.checkpoints, job.model, state.best_step)
        session.observer.noted(
            f"Keeping the weights of update {state.best_step}, the best by held-out loss."
        )
    folder = session.run.adapter if settings.method == "lora" else session.run.model
    session.observer.activity("writing the result")
    with staged_folder(folder) as staged:
        save_result(
            job.model,
            session.materials.tokenizer,
            staged,
            base=session.materials.source,
            chat_template=session.materials.corpus.template.source_text,
            pad_token=settings.pad_token,
        )
    remove_best(session.run.checkpoints)
    session.observer.activity_done()
    if session.prompts:
        session.observer.activity("asking the tuned model")
        tuned: list[str | None] = [
            *answers(job.model, session.materials, session.prompts, settings)
        ]
        session.note_samples(_base_answers(session), tuned)
        session.observer.activity_done()
    return session.note_status("done", state, result=folder.name)


def _base_answers(session: Session) -> list[str | None]:
    records = json.loads(session.run.samples_json.read_text(encoding="utf-8"))
    return [Sample.from_json(record).base for record in records]


def _guard_stop(session: Session, state: TrainingState, stopped: UpdateStopped) -> GuardStop:
    session.observer.happened(
        EventRecord(
            "stopped",
            stopped.step,
            {
                "fault": stopped.fault,
                "reason": stopped.reason,
                "row_ids": list(stopped.row_ids),
            },
        )
    )
    session.note_status("stopped", state, stopped_by=f"{stopped.fault}: {stopped.reason}")
    where = [session.materials.corpus.sources[row] for row in stopped.row_ids[:3]]
    return GuardStop(
        f"stopped at update {stopped.step}, {stopped.fault}: {stopped.reason}. Its rows begin with "
        f"{', '.join(where)}; no result was handed over.",
        where=str(session.run.root),
        hint=f"Take a smaller learning_rate than {session.settings.learning_rate:g}, and look at "
        "those rows.",
    )


def _interrupted(session: Session, state: TrainingState, *, saved: bool) -> Interrupted:
    session.note_status("interrupted", state, stopped_by="asked to stop")
    root = session.run.root
    how = f"saved after update {state.num_updates}" if saved else "aborted before it could save"
    return Interrupted(f"{root}: {how}.", hint=f"Go on with: trimtab resume {root}")


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
    """The checkpoint to go on from; None where there is none at all."""
    found, refused = newest_verified(folder.checkpoints)
    for one in refused:
        observer.noted(f"Refused {one.path.name}: {'; '.join(one.problems)}.")
    if found is None and refused:
        raise ConfigError(
            "no checkpoint of the run is whole.",
            where=str(folder.checkpoints),
            hint="Start the run again under another output_dir.",
        )
    return found


def _forget_after(folder: RunFolder, *, step: int) -> None:
    """Take out of the ledgers what the run will do again."""
    for path in (folder.metrics_jsonl, folder.events_jsonl):
        Ledger(path).keep_only(lambda record: record["step"] <= step)
