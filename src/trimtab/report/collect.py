"""A run folder as values; what is missing is None, what is damaged is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trimtab.planning.plan import Plan
from trimtab.runs.folder import RunFolder, open_run
from trimtab.runs.ledger import Ledger
from trimtab.runs.lock import is_being_written
from trimtab.runs.records import (
    DataRecord,
    EvaluationRecord,
    EventRecord,
    RunSummary,
    Sample,
    UpdateRecord,
)

T = TypeVar("T")

_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that a run wrote down so far.

    A part is None where its file is absent or damaged; `problems` says which were damaged.
    `is_being_written` tells a run that goes on from one whose process was killed.
    """

    run: RunFolder
    config_yaml: str | None
    plan: Plan | None
    data: DataRecord | None
    updates: tuple[UpdateRecord, ...]
    evaluations: tuple[EvaluationRecord, ...]
    events: tuple[EventRecord, ...]
    samples: tuple[Sample, ...] | None
    summary: RunSummary | None
    is_being_written: bool
    problems: tuple[str, ...]


def collect(run: Path) -> RunRecord:
    """Read a run folder. Raises ConfigError where the path is none."""
    folder = open_run(run)
    problems: list[str] = []
    metrics = _read_ledger(folder.metrics_jsonl, _metrics, problems)
    return RunRecord(
        run=folder,
        config_yaml=_read(folder.config_yaml, str, problems),
        plan=_read_json(folder.plan_json, Plan.from_json, problems),
        data=_read_json(folder.data_json, DataRecord.from_json, problems),
        updates=tuple(one for one in metrics if isinstance(one, UpdateRecord)),
        evaluations=tuple(one for one in metrics if isinstance(one, EvaluationRecord)),
        events=_read_ledger(folder.events_jsonl, EventRecord.from_json, problems),
        samples=_read_json(folder.samples_json, _samples, problems),
        summary=_read_json(folder.summary_json, RunSummary.from_json, problems),
        is_being_written=is_being_written(folder),
        problems=tuple(problems),
    )


def _metrics(record: dict[str, Any]) -> UpdateRecord | EvaluationRecord:
    if "eval_loss" in record:
        return EvaluationRecord.from_json(record)
    return UpdateRecord.from_json(record)


def _samples(records: Any) -> tuple[Sample, ...]:
    if not isinstance(records, list):
        raise TypeError(f"a list was expected, not {type(records).__name__}")
    return tuple(Sample.from_json(record) for record in records)


def _read_json(path: Path, understand: Callable[[Any], T], problems: list[str]) -> T | None:
    return _read(path, lambda text: understand(json.loads(text)), problems)


def _read(path: Path, understand: Callable[[str], T], problems: list[str]) -> T | None:
    if not path.is_file():
        return None
    try:
        return understand(path.read_text(encoding="utf-8"))
    except _DAMAGE as error:
        problems.append(_damaged(path, error))
        return None


def _read_ledger(
    path: Path, understand: Callable[[dict[str, Any]], T], problems: list[str]
) -> tuple[T, ...]:
    try:
        content = Ledger(path).read()
        records = tuple(understand(record) for record in content.records)
    except _DAMAGE as error:
        problems.append(_damaged(path, error))
        return ()
    if content.torn_line is not None:
        problems.append(f"{path.name} ends in the middle of a line; that line is left out")
    return records


def _damaged(path: Path, error: Exception) -> str:
    return f"{path.name} cannot be read ({type(error).__name__}: {error})"
