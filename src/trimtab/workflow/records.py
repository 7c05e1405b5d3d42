"""Reading a run's plan and summary back."""

from __future__ import annotations

import json

from trimtab.errors import ConfigError
from trimtab.planning.plan import Plan
from trimtab.runs.folder import RunFolder
from trimtab.runs.records import RunSummary


def read_plan(folder: RunFolder) -> Plan:
    """The plan of a run. Raises ConfigError where it is damaged or another version's."""
    try:
        plan = Plan.from_json(json.loads(folder.plan_json.read_text(encoding="utf-8")))
        plan.settings()
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConfigError(
            f"the plan cannot be read: {type(error).__name__}: {error}.",
            where=str(folder.plan_json),
            hint="It is damaged, or another version of trimtab wrote it; start the run again.",
        ) from error
    return plan


def read_summary(folder: RunFolder) -> RunSummary | None:
    """How the run stands; None where that was not written, or is damaged."""
    try:
        return RunSummary.from_json(json.loads(folder.summary_json.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
