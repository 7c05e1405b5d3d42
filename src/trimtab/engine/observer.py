"""Who is told what a run does; screens and records are observers, the engine knows neither."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from trimtab.planning.plan import Plan
from trimtab.runs.records import EvaluationRecord, EventRecord, UpdateRecord


class Observer(Protocol):
    """Told of everything that a person would want to see while it happens."""

    def activity(self, name: str, total: int | None = None) -> None:
        """Something that takes time begins; `total` is in the unit of `advanced`, if known."""

    def advanced(self, amount: int) -> None:
        """The current activity got on by `amount`."""

    def activity_done(self) -> None:
        """The current activity has ended."""

    def planned(self, plan: Plan) -> None:
        """The plan that training will follow."""

    def run_opened(self, root: Path, plan: Plan) -> None:
        """The run folder is ours from here on."""

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        """One weight update was applied."""

    def evaluated(self, record: EvaluationRecord) -> None:
        """The held-out loss was measured."""

    def happened(self, event: EventRecord) -> None:
        """A checkpoint, a skipped update, a recovery, a change of recipe."""

    def noted(self, text: str) -> None:
        """A sentence for the user."""


class Silent:
    """An observer that says nothing."""

    def activity(self, name: str, total: int | None = None) -> None:
        pass

    def advanced(self, amount: int) -> None:
        pass

    def activity_done(self) -> None:
        pass

    def planned(self, plan: Plan) -> None:
        pass

    def run_opened(self, root: Path, plan: Plan) -> None:
        pass

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        pass

    def evaluated(self, record: EvaluationRecord) -> None:
        pass

    def happened(self, event: EventRecord) -> None:
        pass

    def noted(self, text: str) -> None:
        pass
