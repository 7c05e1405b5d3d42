"""Where the engine stopped with a reason, ask the planner again and go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from trimtab.engine.building import new_loss_scale
from trimtab.engine.checkpoint import load_checkpoint, save_checkpoint
from trimtab.engine.loop import UpdateStopped, run_updates
from trimtab.engine.state import TrainingState
from trimtab.hyperparameters.config import Precision
from trimtab.planning.fact import Facts
from trimtab.planning.rules.fallback import safer_precision
from trimtab.runs.checkpoints import checkpoint_name, newest_verified
from trimtab.runs.folder import RunFolder
from trimtab.runs.ledger import Ledger
from trimtab.runs.records import EventRecord
from trimtab.workflow.jobs import make_job
from trimtab.workflow.session import Progress, Session


def train_through(session: Session, progress: Progress, stop_requested: Callable[[], bool]) -> None:
    """All updates, in a safer precision where one failed and the planner has another.

    Raises UpdateStopped where it has none, StopRequested when asked to stop and saved.
    """
    while True:
        try:
            run_updates(progress.job, progress.state, session.observer, stop_requested)
        except UpdateStopped as stopped:
            _go_on_in_safer_precision(session, progress, stopped)
        else:
            return


def _go_on_in_safer_precision(session: Session, progress: Progress, stopped: UpdateStopped) -> None:
    """The same run, one number format safer, with data order and counts kept.

    From the current weights where no bad update was applied; a collapsed loss may be in the
    weights already, so the run then goes back to the newest checkpoint that verifies, or its
    start. Raises `stopped` again where no safer format is left or the fault is no format's.
    """
    failed = progress.state.precision
    facts = Facts().adding(session.plan.facts)
    is_of_format = stopped.fault != "diverged"
    decision = safer_precision(failed, stopped.reason, facts) if is_of_format else None
    if decision is None:
        raise stopped
    details = {
        "from": failed,
        "to": decision.value,
        "because": decision.because,
        "row_ids": list(stopped.row_ids),
    }
    session.observer.happened(EventRecord("precision changed", stopped.step, details))
    precision: Precision = decision.value
    if stopped.fault == "collapsed":
        checkpoint, _ = newest_verified(session.run.checkpoints)
    else:
        # Saved in the new format already, so that a kill right after this resumes in it.
        _set_precision(progress.state, precision)
        checkpoint = session.run.checkpoints / checkpoint_name(progress.state.num_updates)
        save_checkpoint(checkpoint, progress.job.model, progress.job.optimizer, progress.state)
    settings = replace(progress.job.settings, precision=precision)
    progress.release_job()
    progress.job = make_job(settings, session.materials, session.rows, session.run)
    if checkpoint is None:
        base_eval_loss = progress.state.base_eval_loss
        progress.state = TrainingState(precision=precision, base_eval_loss=base_eval_loss)
    else:
        progress.state = load_checkpoint(checkpoint, progress.job.model, progress.job.optimizer)
    _set_precision(progress.state, precision)
    forget_after(session.run, step=progress.state.num_updates)


def _set_precision(state: TrainingState, precision: Precision) -> None:
    state.precision = precision
    state.loss_scale = new_loss_scale(precision)


def forget_after(run: RunFolder, *, step: int) -> None:
    """Take out of the metrics what the run will do again; events stay, they happened."""
    Ledger(run.metrics_jsonl).keep_only(lambda record: record["step"] <= step)
