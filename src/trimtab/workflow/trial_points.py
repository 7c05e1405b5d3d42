"""Trials that were made at different times, joined to one answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from trimtab.planning.fact import Fact, Facts
from trimtab.planning.questions import Trial

POINTS = "trials.points"
KEY = "trials.key"
_TRIAL_FIELDS = tuple(field.name for field in fields(Trial))


def with_earlier_points(found: Sequence[Fact], earlier: Facts) -> tuple[Fact, ...]:
    """The answer with the points of trials under the same key that it lacks, the earlier first.

    It costs what both did, where there are such points.
    """
    answer = Facts().adding(found)
    if POINTS not in answer or POINTS not in earlier or answer.value(KEY) != earlier.value(KEY):
        return tuple(found)
    made = trials_of(found)
    kept = [point for point in _points(earlier.by_id[POINTS]) if _trial_of(point) not in made]
    if not kept:
        return tuple(found)
    cost_s = answer.by_id[KEY].cost_s + earlier.by_id[KEY].cost_s
    joined = answer.adding(
        [
            replace(answer.by_id[KEY], cost_s=cost_s),
            replace(answer.by_id[POINTS], value=[*kept, *_points(answer.by_id[POINTS])]),
        ]
    )
    return tuple(joined)


def adds_trials(stored: Sequence[Fact], known: Facts) -> bool:
    """Whether the stored answer holds a trial that `known` lacks under the same key."""
    answer = Facts().adding(stored)
    is_same_key = KEY in known and KEY in answer and known.value(KEY) == answer.value(KEY)
    return not is_same_key or not trials_of(stored) <= trials_of(known)


def finished_points(found: Sequence[Fact]) -> tuple[Fact, ...]:
    """The answer with the points that came to their end; empty where none did."""
    facts = tuple(
        replace(fact, value=[point for point in _points(fact) if point["peak_bytes"] is not None])
        if fact.id == POINTS
        else fact
        for fact in found
    )
    return facts if trials_of(facts) else ()


def trials_of(facts: Iterable[Fact]) -> set[tuple[Any, ...]]:
    """The fields of each trial that the facts hold a point of."""
    return {_trial_of(point) for fact in facts if fact.id == POINTS for point in _points(fact)}


def _points(fact: Fact) -> list[Mapping[str, Any]]:
    assert isinstance(fact.value, list)
    return fact.value


def _trial_of(point: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(point[name] for name in _TRIAL_FIELDS)
