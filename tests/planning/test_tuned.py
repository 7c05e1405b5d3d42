from __future__ import annotations

from typing import Any

from planning.facts import LLAMA_135M, planned

from trimtab.planning.fact import Fact, Facts
from trimtab.planning.questions import tuned_key
from trimtab.planning.tuned import EARLIER, MAX_EARLIER, facts_under, with_earlier


def found(key: str, **values: Any) -> tuple[Fact, ...]:
    named = {name.replace("_at_", "."): value for name, value in values.items()}
    return (
        Fact("tuned.key", key, cost_s=5.0),
        *[Fact(f"tuned.{name}", value) for name, value in named.items()],
    )


def under(facts: tuple[Fact, ...], key: str) -> dict[str, Any]:
    taken = facts_under(Facts().adding(facts), "tuned", key)
    assert taken is not None
    return {fact.id: fact.value for fact in taken}


def test_searches_of_other_settings_stand_beside_each_other() -> None:
    both = with_earlier(found("B", weight_decay=0.1), found("A", learning_rate=3e-4))
    assert under(both, "A") == {"tuned.key": "A", "tuned.learning_rate": 3e-4}
    assert under(both, "B") == {"tuned.key": "B", "tuned.weight_decay": 0.1}
    assert facts_under(Facts().adding(both), "tuned", "C") is None
    again = with_earlier(found("A", learning_rate=5e-4), both)
    assert under(again, "A") == {"tuned.key": "A", "tuned.learning_rate": 5e-4}
    assert under(again, "B") == {"tuned.key": "B", "tuned.weight_decay": 0.1}


def test_searches_of_the_same_settings_are_joined_by_name() -> None:
    first = found("A", learning_rate=3e-4, learning_rate_at_low=1e-4)
    joined = with_earlier(found("A", warmup_ratio=0.1), first)
    expected = {"tuned.learning_rate": 3e-4, "tuned.learning_rate.low": 1e-4}
    assert under(joined, "A") == {"tuned.key": "A", "tuned.warmup_ratio": 0.1, **expected}
    newer = with_earlier(found("A", learning_rate=5e-4), joined)
    assert "tuned.learning_rate.low" not in under(newer, "A")


def test_only_the_latest_are_kept_and_what_they_cost_is_paid() -> None:
    facts: tuple[Fact, ...] = ()
    for number in range(MAX_EARLIER + 3):
        facts = with_earlier(found(str(number), learning_rate=number), facts)
    (earlier,) = [fact.value for fact in facts if fact.id == EARLIER]
    assert isinstance(earlier, list) and len(earlier) == MAX_EARLIER
    assert facts_under(Facts().adding(facts), "tuned", "0") is None
    taken = facts_under(Facts().adding(facts), "tuned", "5")
    assert taken is not None and sum(fact.cost_s for fact in taken) == 0


def test_a_plan_takes_what_was_found_under_its_own_settings() -> None:
    settings = planned().settings()
    key = tuned_key(settings)
    facts = with_earlier(found("other", weight_decay=0.1), found(key, learning_rate=7e-4))
    values = {fact.id: fact.value for fact in facts}
    plan = planned(model=LLAMA_135M | values)
    assert plan.decision("learning_rate").value == 7e-4
    assert EARLIER not in {fact.id for fact in plan.facts}
