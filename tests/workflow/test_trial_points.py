from __future__ import annotations

from dataclasses import asdict

from trimtab.planning.fact import Fact, Facts
from trimtab.planning.questions import Trial
from trimtab.workflow.trial_points import trials_of, with_earlier_points


def answer_of(*num_rows: int, cost_s: float, key: str = "same") -> tuple[Fact, ...]:
    points = [asdict(Trial("off", each)) | {"peak_bytes": each} for each in num_rows]
    return (Fact("trials.key", key, cost_s=cost_s), Fact("trials.points", points))


def joined(found: tuple[Fact, ...], earlier: tuple[Fact, ...]) -> Facts:
    return Facts().adding(with_earlier_points(found, Facts().adding(earlier)))


def test_joined_trials_cost_what_all_of_them_did() -> None:
    facts = joined(answer_of(4, cost_s=3.0), answer_of(1, 2, cost_s=5.0))
    assert {trial[1] for trial in trials_of(facts)} == {1, 2, 4}
    assert facts.by_id["trials.key"].cost_s == 8.0


def test_joining_again_what_is_joined_already_costs_nothing() -> None:
    earlier = answer_of(1, 2, cost_s=5.0)
    once = joined(answer_of(4, cost_s=3.0), earlier)
    again = joined(tuple(once), earlier)
    assert again.by_id["trials.key"].cost_s == 8.0
    assert again.value("trials.points") == once.value("trials.points")


def test_trials_under_another_key_are_not_joined() -> None:
    facts = joined(answer_of(4, cost_s=3.0), answer_of(1, cost_s=5.0, key="other"))
    assert trials_of(facts) == {("off", 4, 1)}
    assert facts.by_id["trials.key"].cost_s == 3.0
