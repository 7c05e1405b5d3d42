"""Every hyperparameter that may be `auto` has a rule, or says that no evidence is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planning.facts import CARD_24GB, CPU, planned

from trimtab.hyperparameters.catalogue import catalogue
from trimtab.hyperparameters.declaration import AUTO
from trimtab.planning.decision import Decision
from trimtab.planning.plan import Plan

MAY_BE_AUTO = [entry.name for entry in catalogue().values() if entry.has_auto]


def neither_rule_nor_honest_default(plan: Plan) -> list[str]:
    """The `auto` hyperparameters that the plan gives a value without saying where from."""
    return [name for name in MAY_BE_AUTO if not _is_accounted_for(plan.decision(name))]


def _is_accounted_for(decision: Decision) -> bool:
    if decision.value == AUTO:
        return False
    if decision.origin == "default":
        return "no evidence" in f"{decision.because}; {decision.limits}"
    return decision.origin in {"measured", "rule"} and bool(decision.because)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("device", [CPU, CARD_24GB], ids=["cpu", "24 GB"])
def test_what_is_left_to_auto_is_decided_by_a_rule_or_says_that_there_is_none(
    device: dict[str, object], method: str
) -> None:
    unused = {"lora_r", "lora_alpha"} if method == "full" else set()
    assert set(neither_rule_nor_honest_default(planned(device=device, method=method))) <= unused


def test_a_default_without_a_reason_would_be_found() -> None:
    plan = planned()
    for careless in (
        Decision("num_train_epochs", 3.0, "default", "three is what everyone takes"),
        Decision("num_train_epochs", AUTO, "rule", "left open"),
        Decision("num_train_epochs", 3.0, "user", "set in Python"),
    ):
        decisions = tuple(careless if one.name == careless.name else one for one in plan.decisions)
        found = neither_rule_nor_honest_default(replace(plan, decisions=decisions))
        assert found == ["num_train_epochs"]
