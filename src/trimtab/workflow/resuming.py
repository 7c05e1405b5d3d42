"""Go on with a run as if it had never stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trimtab.engine.checkpoint import ledger_sizes, tensor_bytes
from trimtab.engine.distributed import ALONE
from trimtab.engine.observer import Observer, Silent
from trimtab.errors import ConfigError
from trimtab.planning.recipe import DIVISION, Recipe
from trimtab.runs.atomic import mend
from trimtab.runs.checkpoints import (
    Refused,
    checkpoint_name,
    checkpoint_step,
    newest_verified,
    step_checkpoints,
)
from trimtab.runs.folder import RunFolder, open_run
from trimtab.runs.ledger import Ledger
from trimtab.runs.lock import run_lock
from trimtab.runs.records import EventRecord, RunSummary
from trimtab.workflow import recovering
from trimtab.workflow.carrying_out import carry_out, progress_from, told_memory_errors
from trimtab.workflow.following import follow
from trimtab.workflow.gathering import Caller, Order, calling
from trimtab.workflow.launch import current_launch
from trimtab.workflow.outcome import resume_command, told_full_disk
from trimtab.workflow.planning import from_plan
from trimtab.workflow.provenance import (
    OTHER_ROWS,
    Change,
    Provenance,
    changes,
    has_planned_rows,
    provenance_of,
    read_provenance,
    refused,
    write_provenance,
)
from trimtab.workflow.records import read_plan, read_summary
from trimtab.workflow.session import Session, open_session

PROCESS_EVENTS = frozenset({"resumed", "stopped", "checkpoint refused", "change accepted"})
"""Events that tell of a process and not of the run: what is done again does not repeat them."""


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """The checkpoint to go on from, None for the run's start, and the newer ones refused."""

    checkpoint: Path | None
    refused: tuple[Refused, ...]

    @property
    def step(self) -> int:
        return 0 if self.checkpoint is None else checkpoint_step(self.checkpoint)


def resume(
    run: str | Path, *, allow_changed: bool = False, observer: Observer | None = None
) -> RunSummary:
    """Go on with an interrupted run from its newest checkpoint that verifies, or from its start.

    Nothing is measured or planned anew, and what is done again is not recorded twice. What the
    result depends on must be as it was: settings, libraries, the model's files, rows and device.
    With `allow_changed` the run goes on all the same, and each change is recorded. On another
    number of processes than before (`train` says how they are started) it goes on with the same
    rows in each update, and comes to the same result up to rounding.

    Raises as `train` does; ConfigError where the folder is no run, is finished, holds checkpoints
    of which none verifies, or where something is another; DataError where the rows are others.
    """
    observer = observer or Silent()
    launch = current_launch()
    if launch.rank > 0:
        return follow(launch)
    with calling(launch) as caller:
        folder = open_run(Path(run))
        then = f"go on with: {resume_command(folder, launch.num_ranks)}"
        with told_full_disk(folder, then), run_lock(folder), told_memory_errors():
            return _resumed(folder, caller, observer, allow_changed=allow_changed)


def _resumed(
    folder: RunFolder, caller: Caller, observer: Observer, *, allow_changed: bool
) -> RunSummary:
    _refuse_finished(folder)
    plan = read_plan(folder)
    mend(folder.root)
    mend(folder.checkpoints)
    start = _starting_point(folder)
    session = open_session(from_plan(plan, observer), folder, observer, ALONE)
    accepted = _accepted_changes(session, start, caller.num_ranks, allow_changed=allow_changed)
    changed = [change.what for change in accepted if not change.is_harmless]
    name = None
    if start.checkpoint is not None:
        name = start.checkpoint.name
        _refuse_what_cannot_change(session, changed)
    root = str(folder.root.absolute())
    order = Order(root, plan.to_json(), name, torch.get_num_threads(), changed)
    session = replace(session, ranks=caller.call(order, session.settings))
    observer.run_opened(folder.root, plan)
    _forget_what_is_done_again(folder, start.checkpoint)
    recovering.remove_refused(session, start.refused)
    session.observer.happened(
        EventRecord("resumed", start.step, {"from": name, "num_ranks": caller.num_ranks})
    )
    progress = progress_from(session, start.checkpoint, changed)
    _note_changes(session, accepted, start.step)
    return carry_out(session, progress)


def _accepted_changes(
    session: Session, start: StartingPoint, num_ranks: int, *, allow_changed: bool
) -> list[Change]:
    """What is another than when the run began, or was planned where it was killed before that.

    Raises ConfigError or DataError where the result could not be the same and that is not allowed.
    """
    run = session.run
    has_begun = start.checkpoint is not None or run.data_json.exists()
    if has_begun:
        found = _changes_since_begun(session, num_ranks, allow_changed=allow_changed)
    else:
        found = [] if has_planned_rows(session) else [Change(OTHER_ROWS, None, None)]
    deciding = [change for change in found if not change.is_harmless]
    if deciding and not allow_changed:
        raise refused(run, deciding)
    if not has_begun:
        write_provenance(run, provenance_of(session))
    return found


def _changes_since_begun(session: Session, num_ranks: int, *, allow_changed: bool) -> list[Change]:
    """The number of threads is put back, unless another number of ranks has to share the CPU."""
    then = read_provenance(session.run)
    if isinstance(then, Change):
        return [then]
    has_as_many_ranks = num_ranks == then.settings.get("num_ranks")
    has_other_threads = then.num_threads != torch.get_num_threads()
    if has_as_many_ranks and has_other_threads and not allow_changed:
        torch.set_num_threads(then.num_threads)
        session.observer.noted(f"Going on with {then.num_threads} threads, as it began.")
    return changes(then, provenance_of(session), compares_num_threads=has_as_many_ranks)


def _refuse_what_cannot_change(session: Session, changed: Sequence[str]) -> None:
    """Raises ConfigError for settings that are another and could not be in force from here on."""
    settings = session.settings
    in_force = Recipe.of(settings)
    product = math.prod(getattr(in_force, name) for name in DIVISION)
    divided = sorted(DIVISION.union({"global_batch_size"}).intersection(changed))
    if divided and product != settings.global_batch_size:
        raise ConfigError(
            f"{' and '.join(divided)} cannot be in force: micro-batch, accumulation and ranks make "
            f"{product:,} examples an update, and global_batch_size is "
            f"{settings.global_batch_size:,}.",
            where=str(session.run.plan_json),
            hint="Change them together, or put them back as they were.",
        )
    if "optim" in changed:
        raise ConfigError(
            f"optim cannot change to {settings.optim}: what is saved is another's state.",
            where=str(session.run.plan_json),
            hint="Put it back as it was, or train anew.",
        )


def _note_changes(session: Session, accepted: Sequence[Change], step: int) -> None:
    for change in accepted:
        told = "the result stays the same" if change.is_harmless else "allowed"
        session.observer.noted(f"Changed since the run began: {change} ({told}).")
        session.observer.happened(EventRecord("change accepted", step, asdict(change)))
    if accepted:
        write_provenance(session.run, _to_compare_with(session))


def _to_compare_with(session: Session) -> Provenance:
    """From here on; another number of ranks leaves the CPU's threads as the run began with them."""
    now, then = provenance_of(session), read_provenance(session.run)
    if isinstance(then, Change) or session.ranks.num_ranks == then.settings.get("num_ranks"):
        return now
    return replace(now, num_threads=then.num_threads, device=then.device)


def _refuse_finished(folder: RunFolder) -> None:
    summary = read_summary(folder)
    # One that is not there is written anew from the checkpoint.
    if summary is not None and summary.status == "done":
        raise ConfigError(
            "the run is finished; there is nothing to resume.",
            where=str(folder.root),
            hint=f"Its result is in {folder.root / (summary.result or '')}.",
        )


def _starting_point(folder: RunFolder) -> StartingPoint:
    """Raises ConfigError for a damaged ledger, and where all that was saved is damaged or gone."""
    _read(Ledger(folder.metrics_jsonl))
    told_as_saved = {-1}
    for event in _read(Ledger(folder.events_jsonl)):
        match event["event"]:
            case "checkpoint saved":
                told_as_saved.add(event["step"])
            case "checkpoint refused":
                told_as_saved.discard(event["step"])
            case recovering.WENT_BACK:
                to_checkpoint = event["details"]["to_checkpoint"]
                told_as_saved = {step for step in told_as_saved if step <= to_checkpoint} | {-1}
    last_saved = max(told_as_saved)
    found, refused = newest_verified(folder.checkpoints)
    newest = max(map(checkpoint_step, step_checkpoints(folder.checkpoints)), default=-1)
    if newest < last_saved:
        missing = folder.checkpoints / checkpoint_name(last_saved)
        refused = (Refused(missing, ("the folder is missing",)), *refused)
    if found is None and refused:
        raise ConfigError(
            f"no checkpoint of the run is whole: {'. '.join(map(str, refused))}.",
            where=str(folder.checkpoints),
            hint="Put the files back, or start the run again under another output_dir.",
        )
    return StartingPoint(found, refused)


def _read(ledger: Ledger) -> tuple[dict[str, Any], ...]:
    try:
        return ledger.read().records
    except ValueError as error:
        raise ConfigError(
            f"{error}: the line is damaged.",
            hint="Remove the line; what is trained does not depend on it.",
        ) from error


def _forget_what_is_done_again(folder: RunFolder, checkpoint: Path | None) -> None:
    """Cut both ledgers back to the checkpoint.

    Of later events those about processes stay, and that the checkpoint was saved, which is told
    after it; where its writer was killed in between, it is told here.
    """
    if checkpoint is None:
        Ledger(folder.metrics_jsonl).cut(0)
    else:
        recovering.cut_metrics(folder, checkpoint)
    events = Ledger(folder.events_jsonl)
    own: list[Mapping[str, Any]] = []

    def keep(event: Mapping[str, Any]) -> bool:
        if event["event"] in PROCESS_EVENTS:
            return True
        is_own = checkpoint is not None and _is_saving_of(checkpoint, event) and not own
        if is_own:
            own.append(event)
        return is_own

    events.cut(0 if checkpoint is None else ledger_sizes(checkpoint).events_bytes, keep)
    if checkpoint is not None and not own:
        step = checkpoint_step(checkpoint)
        details = {"folder": checkpoint.name, "bytes": tensor_bytes(checkpoint)}
        event = EventRecord("checkpoint saved", step, details)
        events.append(event.to_json(), durable=True)


def _is_saving_of(checkpoint: Path, event: Mapping[str, Any]) -> bool:
    told = (event["event"], event["details"].get("folder"))
    return told == ("checkpoint saved", checkpoint.name)
