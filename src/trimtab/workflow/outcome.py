"""How a run ends: every way out has its status on disk and its error for the user."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from trimtab.engine.distributed import RanOutInAnExchange, is_lost_peer
from trimtab.engine.stops import RanOutOfMemory, StopRequested, UpdateStopped
from trimtab.errors import ConfigError, DoesNotFit, GuardStop, Interrupted, TrimtabError
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.planning.fact import Facts
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.rules.out_of_memory import what_needs_less
from trimtab.runs.folder import RunFolder
from trimtab.runs.records import EventRecord, Status
from trimtab.workflow.run_facts import keep_run_facts
from trimtab.workflow.session import Progress, Session

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.contextmanager
def told_outcome(session: Session, progress: Progress) -> Iterator[None]:
    """Around a run's updates and its handing over: whatever ends them is written and named.

    Raises GuardStop, Interrupted, DoesNotFit or ConfigError (the disk is full or fails, or the
    run folder cannot be written); other errors pass through, with the status `failed`.
    """
    try:
        session.note_status("running", progress.state)
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
        if not _is_of_disk(error, session.run):
            raise
        raise _unwritable(error, session.run, f"go on with: {_to_resume(session)}") from error
    except BaseException as error:
        if isinstance(error, RanOutInAnExchange):
            raise _no_memory_for_shards(session, progress, f"rank {session.ranks.rank}") from None
        if is_lost_peer(error):
            raise _without_a_rank(session, progress) from None
        if is_out_of_memory(error):
            raise _no_memory_beside_updates(session, progress) from error
        _note(session, progress, "failed", f"{type(error).__name__}: {error}")
        raise


@contextlib.contextmanager
def told_full_disk(run: RunFolder, then: str) -> Iterator[None]:
    """Around what a run writes before its updates; `then` is what to do once there is room.

    Raises ConfigError where a disk is full, or a file of the run folder is refused.
    """
    try:
        yield
    except OSError as error:
        if not _is_of_disk(error, run):
            raise
        raise _unwritable(error, run, then) from error


def _is_of_disk(error: OSError, run: RunFolder) -> bool:
    """Whether a disk is full or fails, or a file of the run folder is refused."""
    name = error.filename
    is_of_run = isinstance(name, str) and Path(name).is_relative_to(run.root)
    return is_of_run or error.errno in {*FULL, errno.EIO}


def _unwritable(error: OSError, run: RunFolder, then: str) -> ConfigError:
    return ConfigError(
        f"the run folder cannot be written: {error.strerror}.",
        where=str(error.filename or run.root),
        hint=f"Make room or mend it, then {then}",
    )


def _to_resume(session: Session) -> str:
    return resume_command(session.run, session.ranks.num_ranks)


def resume_command(run: RunFolder, num_ranks: int) -> str:
    """torchrun has its own way to start as many processes."""
    processes = f" --num-processes {num_ranks}" if num_ranks > 1 else ""
    return f"trimtab resume {run.root}{processes}"


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
    decided = session.plan.decision("learning_rate")
    if decided.origin == "user" and decided.alternatives:
        rate += f" (left to the plan it would be {decided.alternatives[0].value:g})"
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
    if not is_aborted and session.ranks.is_first:
        # Another Ctrl-C finds the run saved: the facts are what it may cost.
        with contextlib.suppress(OSError, KeyboardInterrupt):
            keep_run_facts(run, session.asked_config, session.observer, step=step)
    _note(session, progress, "interrupted", "asked to stop")
    root = session.run.root
    if is_aborted:
        how = "aborted; what it had saved before is there"
    elif progress.state.num_updates == 0:
        how = "stopped before its first update"
    else:
        how = f"saved after update {progress.state.num_updates}"
    return Interrupted(f"{root}: {how}.", hint=f"Go on with: {_to_resume(session)}")


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


def _without_a_rank(session: Session, progress: Progress) -> Exception:
    """The error for the end of another rank, which has told why or was killed."""
    root, num_ranks = session.run.root, session.ranks.num_ranks
    reason = session.ranks.why_lost() if session.ranks.is_first else None
    if reason is None:
        _note(session, progress, "interrupted", f"one of {num_ranks} ranks is gone")
        return Interrupted(
            f"{root}: one of {num_ranks} processes is gone; what was saved before is there.",
            hint=f"Go on with: {_to_resume(session)}",
        )
    if reason.is_memory:
        return _no_memory_for_shards(session, progress, f"rank {reason.rank}")
    _note(session, progress, "failed", f"rank {reason.rank}: {reason.text}")
    return RuntimeError(f"on rank {reason.rank}: {reason.text}")


def _no_memory_for_shards(session: Session, progress: Progress, where: str) -> DoesNotFit:
    step, root = progress.state.num_updates + 1, session.run.root
    _note(session, progress, "stopped", f"out of memory in update {step} on {where}")
    size = progress.job.settings.per_device_train_batch_size
    return DoesNotFit(
        f"update {step} ran out of memory on {where}, with {size} at once on each rank.",
        where=str(root),
        hint="Train anew with a smaller per_device_train_batch_size or max_length, or on more "
        "ranks; what was saved before is there.",
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
        f"{_to_resume(session)}; or train anew with a smaller model.",
    )
