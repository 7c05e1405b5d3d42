"""An observer that writes the run folder's ledgers and passes everything on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trimtab.engine.observer import Observer
from trimtab.planning.plan import Plan
from trimtab.runs.ledger import Ledger
from trimtab.runs.records import EvaluationRecord, EventRecord, UpdateRecord


class RecordingObserver:
    """Writes metrics.jsonl and events.jsonl as the run goes on.

    An event that names rows gets their files and lines: `row_sources` are by row id.
    """

    def __init__(
        self, metrics: Ledger, events: Ledger, shown: Observer, row_sources: Sequence[str]
    ) -> None:
        self._row_sources = row_sources
        self._metrics = metrics
        self._events = events
        self._shown = shown

    def activity(self, name: str, total: int | None = None) -> None:
        self._shown.activity(name, total)

    def advanced(self, amount: int) -> None:
        self._shown.advanced(amount)

    def activity_done(self) -> None:
        self._shown.activity_done()

    def planned(self, plan: Plan) -> None:
        self._shown.planned(plan)

    def run_opened(self, root: Path, plan: Plan) -> None:
        self._shown.run_opened(root, plan)

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        self._metrics.append(record.to_json())
        self._shown.updated(record, num_steps)

    def evaluated(self, record: EvaluationRecord) -> None:
        self._metrics.append(record.to_json())
        self._shown.evaluated(record)

    def happened(self, event: EventRecord) -> None:
        if event.details.get("row_ids"):
            rows = [self._row_sources[row_id] for row_id in event.details["row_ids"]]
            event = replace(event, details={**event.details, "rows": rows})
        self._events.append(event.to_json(), durable=True)
        self._shown.happened(event)

    def noted(self, text: str) -> None:
        self._shown.noted(text)
