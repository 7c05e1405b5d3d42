"""What finished searches found, each under the settings that it holds for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from trimtab.planning.fact import Fact, Facts

KEY = "tuned.key"
EARLIER = "tuned.earlier"
"""A fact that holds, as JSON, the facts of earlier searches under other keys, the latest first."""
MAX_EARLIER = 7


def with_earlier(found: Sequence[Fact], earlier: Iterable[Fact]) -> tuple[Fact, ...]:
    """What a search found beside what earlier ones did.

    Of the same key the earlier facts stay for hyperparameters of which the search found nothing;
    those of other keys are set aside.
    """
    of_name = Facts().adding(found)
    names = {fact.id.split(".")[1] for fact in found}
    others = []
    for facts in _searches(Facts().adding(earlier)):
        if facts.value(KEY) == of_name.value(KEY):
            kept = [fact for fact in facts if fact.id.split(".")[1] not in names]
            of_name = of_name.adding(kept)
        else:
            others.append([replace(fact, cost_s=0.0).to_json() for fact in facts])
    if not others:
        return tuple(of_name)
    return (*of_name, Fact(EARLIER, others[:MAX_EARLIER], method="earlier searches"))


def facts_under(facts: Facts, family: str, key: str) -> tuple[Fact, ...] | None:
    """The family's facts that were found under the key; None where there are none."""
    found = _searches(facts) if family == "tuned" else [Facts().adding(facts.of(family))]
    return next((tuple(each) for each in found if each.value(f"{family}.key") == key), None)


def _searches(facts: Facts) -> list[Facts]:
    """The facts of each search by itself, the latest first."""
    latest = Facts().adding(fact for fact in facts.of("tuned") if fact.id != EARLIER)
    kept = facts.value(EARLIER) if EARLIER in facts else []
    assert isinstance(kept, list)
    earlier = [Facts().adding(map(Fact.from_json, records)) for records in kept]
    return [each for each in (latest, *earlier) if KEY in each]
