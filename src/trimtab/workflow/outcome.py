"""How a run ends: every way out has its status on disk and its error for the user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from trimtab.engine.stops import RanOutOfMemory, StopRequested, UpdateStopped
from trimtab.errors import ConfigError, DoesNotFit, GuardStop, Interrupted, TrimtabError
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.planning.fact import Facts
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.rules.out_of_memory import what_needs_less
from trimtab.runs.records import EventRecord, Status
from trimtab.workflow.run_facts import keep_run_facts
from trimtab.workflow.session import Progress, Session


@contextlib.contextmanager
def told_outcome(session: Session, progress: Progress) -> Iterator[None]:
    """Around a run's updates and its handing over: whatever ends them is written and named.

    Raises GuardStop, Interrupted, DoesNotFit or ConfigError (the run folder cannot be written);
    other errors pass through, with the status `failed`.
    """
    session.note_status("running", progress.state)
    try:
        yield
    except UpdateStopped as stopped:
        raise _guard_stop(session, progress, stopped) from None
    except RanOutOfMemory as ran_out:
        raise _smallest_does_not_fit(session, progress, ran_out) from None
    except StopRequested:
        raise _interrupted(session, progress, is_aborted=False) from None
    except KeyboardInterrupt:
        raise _interrupted(session, progress, is_aborted=True) from None
    except TrimtabError as error:
        _note(session, progress, "failed", str(error))
        raise
    except OSError as error:
        _note(session, progress, "failed", str(error))
        raise ConfigError(
            f"the run folder cannot be written: {error.strerror}.",
            where=str(error.filename or session.run.root),
            hint=f"Make room or mend it, then go on with: trimtab resume {session.run.root}",
        ) from error
    except BaseException as error:
        if is_out_of_memory(error):
            raise _no_memory_beside_updates(session, progress) from error
        _note(session, progress, "failed", f"{type(error).__name__}: {error}")
        raise


def _note(session: Session, progress: Progress, status: Status, stopped_by: str) -> None:
    """Write the status; where the disk is what failed, the error itself is worth more."""
    with contextlib.suppress(OSError):
        session.note_status(status, progress.state, stopped_by=stopped_by)


def _guard_stop(session: Session, progress: Progress, stopped: UpdateStopped) -> GuardStop:
    details = {
        "fault": stopped.fault,
        "reason": stopped.reason,
        "row_ids": list(stopped.row_ids),
    }
    session.observer.happened(EventRecord("stopped", stopped.step, details))
    _note(session, progress, "stopped", f"{stopped.fault}: {stopped.reason}")
    sources = session.materials.corpus.sources
    rows = ", ".join(sources[row] for row in stopped.row_ids[:3])
    return GuardStop(
        f"stopped at update {stopped.step}, {stopped.fault}: {stopped.reason}. "
        + (f"Its rows begin with {rows}. " if rows else "")
        + "No result was handed over.",
        where=str(session.run.root),
        hint=_next_step(session, stopped),
    )


def _next_step(session: Session, stopped: UpdateStopped) -> str:
    rate = f"a smaller learning_rate than {session.settings.learning_rate:g}"
    if stopped.fault == "loss spike":
        return (
            "Look at those rows: events.jsonl names them all. If they are bad, mend them, or set "
            f"on_loss_spike: skip to go past them; if they are not, take {rate}, or "
            "on_loss_spike: rewind."
        )
    if stopped.fault == "diverged" and session.settings.on_loss_spike != "stop":
        return f"Take {rate}; on_loss_spike answers single batches, and this is none."
    return f"Take {rate}" + (", and look at those rows." if stopped.row_ids else ".")


def _interrupted(session: Session, progress: Progress, *, is_aborted: bool) -> Interrupted:
    run, step = session.run, progress.state.num_updates
    if not is_aborted:
        with contextlib.suppress(OSError):
            keep_run_facts(run, session.asked_config, session.observer, step=step)
    _note(session, progress, "interrupted", "asked to stop")
    root = session.run.root
    if is_aborted:
        how = "aborted; what it had saved before is there"
    elif progress.state.num_updates == 0:
        how = "stopped before its first update"
    else:
        how = f"saved after update {progress.state.num_updates}"
    return Interrupted(f"{root}: {how}.", hint=f"Go on with: trimtab resume {root}")


def _smallest_does_not_fit(
    session: Session, progress: Progress, ran_out: RanOutOfMemory
) -> DoesNotFit:
    """The recipe in force is the smallest that there is."""
    settings = progress.job.settings
    details = {"fault": "out of memory", "reason": str(ran_out), "row_ids": list(ran_out.row_ids)}
    session.observer.happened(EventRecord("stopped", ran_out.step, details))
    _note(session, progress, "stopped", f"out of memory: {ran_out}")
    size = (
        settings.per_device_eval_batch_size
        if ran_out.phase == "held-out pass"
        else settings.per_device_train_batch_size
    )
    failed = MicroBatchSize(ran_out.num_tokens, ran_out.num_scored, ran_out.num_tokens**2)
    return DoesNotFit(
        f"update {ran_out.step} ran out of memory on {settings.device} in the {ran_out.phase}, "
        f"with {size} at once and activation_checkpointing "
        f"{settings.activation_checkpointing}.",
        where=str(session.run.root),
        hint=what_needs_less(settings, Facts().adding(session.plan.facts), failed),
    )


def _no_memory_beside_updates(session: Session, progress: Progress) -> DoesNotFit:
    """While a checkpoint or the result was written, or samples were answered."""
    step = progress.state.num_updates
    _note(session, progress, "stopped", f"out of memory after update {step}, between updates")
    return DoesNotFit(
        f"memory ran out on {session.settings.device} after update {step}, beside the updates "
        "themselves.",
        where=str(session.run.root),
        hint="Give other programs less of it and go on with: "
        f"trimtab resume {session.run.root}; or train anew with a smaller model.",
    )
