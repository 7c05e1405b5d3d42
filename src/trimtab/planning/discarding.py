"""What was measured for settings that the plan does not take: unused, and paid for all the same."""

from __future__ import annotations

from collections.abc import Iterable

from trimtab.planning.fact import Fact, Facts

DISCARDED = "discarded."


def with_answer(facts: Facts, answer: Iterable[Fact]) -> Facts:
    """The facts with an answer added; it takes the place of its family under another key."""
    added = tuple(answer)
    for fact in added:
        family, _, name = fact.id.partition(".")
        if name == "key" and fact.id in facts and facts.value(fact.id) != fact.value:
            facts = facts.without(family).adding(discarded(facts, family))
    return facts.adding(added)


def discarded(facts: Facts, family: str) -> tuple[Fact, ...]:
    """`discarded.FAMILY`: the family's seconds and those that it had before; none that are 0."""
    of_family = [fact for fact in facts if family_of(fact) == family]
    cost_s = sum(fact.cost_s for fact in of_family)
    if cost_s == 0:
        return ()
    method = "measured under settings that the plan does not take"
    return (Fact(f"{DISCARDED}{family}", cost_s, "s", method=method, cost_s=cost_s),)


def family_of(fact: Fact) -> str:
    """The family that a fact belongs to, or belonged to before it was discarded."""
    return fact.id.removeprefix(DISCARDED).partition(".")[0]
