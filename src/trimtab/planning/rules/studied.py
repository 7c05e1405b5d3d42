"""What studies of this model, these rows and this method found, beside what is decided."""

from __future__ import annotations

from dataclasses import replace

from trimtab.planning.decision import Decision
from trimtab.planning.fact import Facts


def study_fact_id(name: str) -> str:
    """The id of the fact that a study of hyperparameter `name` leaves."""
    return f"study.{name}"


def with_study(decision: Decision, facts: Facts) -> Decision:
    """The decision with what a study of its hyperparameter found, where there was one.

    It is told and does not decide: a study compares values at its own settings and length, and
    which of them to take, where they differ, is the user's to say.
    """
    fact_id = study_fact_id(decision.name)
    if fact_id not in facts:
        return decision
    found = facts.value(fact_id)
    assert isinstance(found, dict)
    because = "; ".join(part for part in (decision.because, found["told"]) if part)
    return replace(decision, because=because, facts=(*decision.facts, fact_id))
