"""All decisions and predictions of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from trimtab.planning.decision import Decision
from trimtab.planning.fact import Fact
from trimtab.planning.settings import Settings

PLAN_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the run is expected to take; None where nothing was measured or computed yet.

    peak_memory_bytes: of this run, in its seeded order. worst_case_memory_bytes: of a micro-batch
    of the longest rows, which `memory_limit` holds. On a CPU both are resident sets of the whole
    process, on CUDA reserved memory. total_time_s: updates and evaluations.
    """

    num_steps: int
    tokens_per_step: float | None = None
    peak_memory_bytes: int | None = None
    worst_case_memory_bytes: int | None = None
    step_time_s: float | None = None
    total_time_s: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The one thing that training accepts.

    `derived` holds settings that are no hyperparameters of their own (`num_train_steps`,
    `pad_token_id`, `num_eval_rows`). `warnings` are sentences for the user. `not_measured` names,
    in phrases, what the plan rests on without a measurement. `config_yaml` is what the user wrote;
    `paths` are the absolute paths of the files that it names, by hyperparameter. `day` is when it
    was made: what a chat template that writes the date is told.
    """

    decisions: tuple[Decision, ...]
    derived: Mapping[str, Any]
    facts: tuple[Fact, ...]
    predictions: Predictions
    warnings: tuple[str, ...] = ()
    not_measured: tuple[str, ...] = ()
    config_yaml: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)
    day: date | None = None

    def decision(self, name: str) -> Decision:
        """The decision on a hyperparameter. Raises KeyError for a name that is not in the plan."""
        for decision in self.decisions:
            if decision.name == name:
                return decision
        raise KeyError(name)

    def settings(self) -> Settings:
        values = {decision.name: decision.value for decision in self.decisions}
        return Settings.from_values({**values, **self.derived})

    def to_json(self) -> dict[str, Any]:
        return {
            "format": PLAN_FORMAT,
            "decisions": [decision.to_json() for decision in self.decisions],
            "derived": dict(self.derived),
            "predictions": asdict(self.predictions),
            "facts": [fact.to_json() for fact in self.facts],
            "warnings": list(self.warnings),
            "not_measured": list(self.not_measured),
            "config_yaml": self.config_yaml,
            "paths": dict(self.paths),
            "day": None if self.day is None else self.day.isoformat(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` wrote.

        Raises ValueError for another format number, and ValueError, KeyError or TypeError for a
        record of another shape.
        """
        if record["format"] != PLAN_FORMAT:
            raise ValueError(f"plan format {record['format']}, expected {PLAN_FORMAT}")
        return cls(
            decisions=tuple(Decision.from_json(item) for item in record["decisions"]),
            derived=record["derived"],
            facts=tuple(Fact.from_json(item) for item in record["facts"]),
            predictions=Predictions(**record["predictions"]),
            warnings=tuple(record["warnings"]),
            not_measured=tuple(record["not_measured"]),
            config_yaml=record["config_yaml"],
            paths=record["paths"],
            day=date.fromisoformat(record["day"]) if record["day"] else None,
        )
