"""The measured weight updates of a plan, as values that fits are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from trimtab.planning.fact import Facts
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.questions import Trial
from trimtab.planning.rules.memory import Checkpointing


@dataclass(frozen=True, slots=True)
class Point:
    """One trial's outcome. peak_bytes is None where the process died of it."""

    trial: Trial
    size: MicroBatchSize
    update_s: tuple[float, ...]
    peak_bytes: int | None

    @property
    def checkpointing(self) -> Checkpointing:
        return self.trial.activation_checkpointing


def measured_points(facts: Facts) -> tuple[Point, ...]:
    """The points of `trials.points`, none where no trial was made."""
    if "trials.points" not in facts:
        return ()
    return tuple(
        _point(record) for record in cast(list[Mapping[str, Any]], facts.value("trials.points"))
    )


def _point(record: Mapping[str, Any]) -> Point:
    return Point(
        trial=Trial(
            activation_checkpointing=record["activation_checkpointing"],
            num_rows=record["num_rows"],
            num_micro_batches=record["num_micro_batches"],
        ),
        size=MicroBatchSize(
            record["num_tokens"], record["num_scored"], record["sum_length_squared"]
        ),
        update_s=tuple(record["update_s"]),
        peak_bytes=record["peak_bytes"],
    )


def by_checkpointing(points: Sequence[Point]) -> dict[Checkpointing, list[Point]]:
    """The points that were measured to their end, by checkpointing."""
    grouped: dict[Checkpointing, list[Point]] = {}
    for point in points:
        if point.peak_bytes is not None:
            grouped.setdefault(point.checkpointing, []).append(point)
    return grouped
