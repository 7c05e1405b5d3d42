"""What came of the guide's claims, as a study of them keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trimtab.runs.non_finite import as_text, from_text
from trimtab.study.claims import Outcome, Quantity
from trimtab.study.statistics import Comparison


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """What came of a claim. `figures` says in words what was measured, or why nothing was."""

    row: int
    says: str
    name: str
    values: tuple[Any, ...]
    quantity: Quantity
    outcome: Outcome
    figures: str
    comparisons: tuple[Comparison, ...] = ()


@dataclass(frozen=True, slots=True)
class GuideResult:
    """result.json of a study of the guide. num_steps: weight updates of a run as planned."""

    folder: str
    claims: tuple[ClaimResult, ...]
    seeds: tuple[int, ...]
    num_steps: int
    equivalence_margin: float

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = as_text(asdict(self))
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> GuideResult:
        claims = [
            ClaimResult(
                **{
                    **claim,
                    "values": tuple(claim["values"]),
                    "comparisons": tuple(map(Comparison.from_json, claim["comparisons"])),
                }
            )
            for claim in from_text(record["claims"])
        ]
        return cls(**{**record, "claims": tuple(claims), "seeds": tuple(record["seeds"])})
