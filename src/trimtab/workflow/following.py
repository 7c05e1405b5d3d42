"""What ranks behind the first do: the same run, without a word or a file."""

from __future__ import annotations

from pathlib import Path

from trimtab.engine.observer import Silent
from trimtab.planning.plan import Plan
from trimtab.runs.folder import RunFolder
from trimtab.runs.records import RunSummary
from trimtab.workflow.carrying_out import carry_out, progress_from, told_memory_errors
from trimtab.workflow.gathering import called
from trimtab.workflow.launch import Launch
from trimtab.workflow.planning import from_plan
from trimtab.workflow.session import open_session


def follow(launch: Launch) -> RunSummary:
    """Take part in the run that the first rank calls for; raises what the first rank raises.

    Checkpoints are read from the run's folder, which all ranks must see.
    """
    with called(launch) as (order, ranks), told_memory_errors():
        run = RunFolder(Path(order.run))
        planned = from_plan(Plan.from_json(order.plan), Silent())
        session = open_session(planned, run, Silent(), ranks)
        checkpoint = None if order.checkpoint is None else run.checkpoints / order.checkpoint
        return carry_out(session, progress_from(session, checkpoint, order.changed))
