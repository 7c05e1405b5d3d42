"""Train a plan: from a configuration to what is handed over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from trimtab.engine.observer import Observer, Silent
from trimtab.errors import ConfigError, DataError
from trimtab.planning.plan import Plan
from trimtab.runs.atomic import write_json, write_text
from trimtab.runs.folder import RunFolder, create_run, discard_run, refuse_taken
from trimtab.runs.lock import run_lock
from trimtab.runs.records import RunSummary
from trimtab.workflow.carrying_out import carry_out, progress_from, told_memory_errors
from trimtab.workflow.following import follow
from trimtab.workflow.gathering import Caller, Order, calling
from trimtab.workflow.launch import current_launch
from trimtab.workflow.outcome import told_full_disk
from trimtab.workflow.planning import ConfigLike, PlannedRun, from_plan, plan_run, resolve_config
from trimtab.workflow.provenance import (
    OTHER_ROWS,
    has_planned_rows,
    provenance_of,
    write_provenance,
)
from trimtab.workflow.session import Progress, Session, open_session
from trimtab.workflow.tracking import refuse_without_library


def train(
    config: ConfigLike | Plan | None = None,
    *,
    options: Sequence[tuple[str, str]] = (),
    observer: Observer | None = None,
) -> RunSummary:
    """Fine-tune as planned; a configuration is planned first.

    The run folder holds everything that happened, and `adapter/` or `model/` the best weights by
    held-out loss (the last, where nothing is held out). Where torchrun has started several
    processes that all call this, they train one run together: the first one plans, writes and
    tells, and the arguments of the others are not looked at.

    Raises ConfigError, DataError, DoesNotFit, GuardStop (a bad number; nothing is handed over) or
    Interrupted (saved, resumable); TypeError for options beside a plan, which is decided already.
    """
    observer = observer or Silent()
    launch = current_launch()
    if launch.rank > 0:
        return follow(launch)
    with calling(launch) as caller, told_memory_errors():
        if isinstance(config, Plan):
            if options:
                raise TypeError("a plan takes no options: make another plan with them")
            planned = from_plan(config, observer)
            _refuse_other_ranks(config, launch.num_ranks)
        else:
            resolved = resolve_config(config, options)
            if resolved.config.output_dir != "auto":
                refuse_taken(Path(resolved.config.output_dir))
            refuse_without_library(resolved.config.report_to)
            planned = plan_run(resolved, observer, num_ranks=launch.num_ranks)
        observer.planned(planned.plan)
        output_dir = Path(planned.plan.settings().output_dir)
        # Path.is_dir raises for what is in a folder that may not be entered.
        was_there = os.path.isdir(output_dir)  # noqa: PTH112
        run = create_run(output_dir)
        with told_full_disk(run, "train anew."), run_lock(run):
            try:
                session, progress = _begin(planned, run, observer, caller)
            except BaseException:
                # Nothing was trained: a folder that looks like a run would be in the way.
                discard_run(run, keep_folder=was_there)
                raise
            return carry_out(session, progress)


def _begin(
    planned: PlannedRun, run: RunFolder, observer: Observer, caller: Caller
) -> tuple[Session, Progress]:
    write_text(run.config_yaml, planned.plan.config_yaml)
    write_json(run.plan_json, planned.plan.to_json())
    order = Order(str(run.root.absolute()), planned.plan.to_json(), None, torch.get_num_threads())
    ranks = caller.call(order, planned.plan.settings())
    session = open_session(planned, run, observer, ranks)
    _check_rows(session)
    observer.activity("fingerprinting the model")
    write_provenance(run, provenance_of(session))
    observer.activity_done()
    progress = progress_from(session, None)
    observer.run_opened(run.root, planned.plan)
    return session, progress


def _refuse_other_ranks(plan: Plan, num_ranks: int) -> None:
    planned_for = plan.settings().num_ranks
    if planned_for != num_ranks:
        raise ConfigError(
            f"the plan is for {planned_for} processes, and {num_ranks} were started.",
            hint="Make it for as many as are to train.",
        )


def _check_rows(session: Session) -> None:
    if not has_planned_rows(session):
        raise DataError(
            f"{OTHER_ROWS}.",
            where=session.settings.dataset,
            hint="Put them back, or plan and train anew.",
        )
