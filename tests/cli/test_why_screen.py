"""One decision unfolded."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from support.plans import measured_plan

from trimtab.cli.why_screen import show_why, why_json
from trimtab.hyperparameters.catalogue import catalogue
from trimtab.planning.plan import Plan


def shown(plan: Plan, name: str, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    show_why(console, plan, name)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def unwrapped(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", list(catalogue()))
@pytest.mark.parametrize("width", [80, 120])
def test_each_decision_unfolds_within_the_width(name: str, width: int) -> None:
    plan = measured_plan()
    text = shown(plan, name, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert f"Why {name}" in text
    assert plan.decision(name).origin in text


def test_all_that_a_decision_has_is_told() -> None:
    plan = measured_plan()
    decision = plan.decision("learning_rate")
    declaration = catalogue()["learning_rate"].declaration
    text = unwrapped(shown(plan, "learning_rate", width=400))
    for expected in (
        declaration.meaning,
        declaration.auto,
        declaration.evidence,
        decision.because,
        decision.limits,
        *(other.because for other in decision.alternatives),
        *decision.facts,
    ):
        assert expected is not None
        assert expected in text


def test_facts_are_told_in_their_unit_with_spread_device_and_cost() -> None:
    text = unwrapped(shown(measured_plan(), "precision"))
    assert "444 GFLOP/s ± 5 GFLOP/s" in text
    assert "a constructed device 0.5 s" in text


def test_a_probe_of_one_process_has_its_cost_as_a_whole() -> None:
    text = unwrapped(shown(measured_plan(), "learning_rate"))
    assert "rate_range.diverging_rate 0.01 8 s" in text


def test_trials_are_a_table_of_the_measured_points() -> None:
    lines = [
        unwrapped(line)
        for line in shown(measured_plan(), "per_device_train_batch_size").splitlines()
    ]
    assert "checkpointing rows batches tokens an update tokens/s peak memory" in lines
    # Two micro-batches an update; the first update warms up and is not counted.
    assert "off 4 longest 2 2,400 2 s 1,200 3.00 GiB" in lines
    assert "full 8 longest 2 4,800 4 s 1,200 outgrew it" in lines


def test_a_rate_range_is_a_picture_and_harm_goes_off_it() -> None:
    lines = shown(measured_plan(), "learning_rate").splitlines()
    (safe,) = [line for line in lines if "2.5000" in line]
    (lower,) = [line for line in lines if "2.0000" in line]
    (harmful,) = [line for line in lines if "9.0000" in line]
    assert safe.count("█") > lower.count("█") > 0
    assert harmful.rstrip().endswith("▶")
    assert any("not finite" in line for line in lines)


@pytest.mark.parametrize("name", ["learning_rate", "lr_scheduler_type", "warmup_steps"])
def test_the_schedule_is_drawn(name: str) -> None:
    assert "▁" in shown(measured_plan(), name)


def test_the_json_is_the_decision_with_its_facts() -> None:
    plan = measured_plan()
    told = json.loads(json.dumps(why_json(plan, "learning_rate")))
    assert told["decision"] == json.loads(json.dumps(plan.decision("learning_rate").to_json()))
    assert [fact["id"] for fact in told["facts"]] == list(plan.decision("learning_rate").facts)
