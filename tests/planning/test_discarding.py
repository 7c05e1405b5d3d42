from __future__ import annotations

from trimtab.planning.discarding import discarded, with_answer
from trimtab.planning.fact import Fact, Facts

TIMED = Facts().adding([Fact("device.kind", "cpu", cost_s=1.0)])


def trials(key: str, cost_s: float, **facts: str) -> list[Fact]:
    others = [Fact(f"trials.{name}", value) for name, value in facts.items()]
    return [Fact("trials.key", key, cost_s=cost_s), *others]


def costs(facts: Facts) -> dict[str, float]:
    return {fact.id: fact.cost_s for fact in facts if fact.cost_s}


def test_an_answer_under_another_key_takes_the_place_of_the_whole_family() -> None:
    facts = with_answer(TIMED, trials("bf16", 8.0, failure="it was killed"))
    facts = with_answer(facts, trials("fp32", 3.0, points="some"))
    assert "trials.failure" not in facts
    assert facts.value("trials.key") == "fp32"
    assert costs(facts) == {"device.kind": 1.0, "trials.key": 3.0, "discarded.trials": 8.0}


def test_seconds_add_up_however_often_it_happens() -> None:
    facts = TIMED
    for key, cost_s in (("a", 1.0), ("b", 2.0), ("c", 4.0)):
        facts = with_answer(facts, trials(key, cost_s))
    assert costs(facts) == {"device.kind": 1.0, "trials.key": 4.0, "discarded.trials": 3.0}


def test_more_of_the_same_key_discards_nothing() -> None:
    facts = with_answer(TIMED, trials("bf16", 8.0, loaded="yes"))
    facts = with_answer(facts, trials("bf16", 11.0, points="some"))
    assert facts.value("trials.loaded") == "yes"
    assert costs(facts) == {"device.kind": 1.0, "trials.key": 11.0}


def test_what_was_recalled_leaves_nothing_to_pay() -> None:
    facts = TIMED.adding(trials("bf16", 0.0))
    assert discarded(facts, "trials") == ()
    assert costs(with_answer(facts, trials("fp32", 2.0))) == {
        "device.kind": 1.0,
        "trials.key": 2.0,
    }
