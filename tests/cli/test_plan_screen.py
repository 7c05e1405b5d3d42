"""The plan as people read it: each decision, what it will take, and what the measuring cost."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from support.plans import measured_plan

from trimtab.cli.plan_screen import show_plan
from trimtab.hyperparameters.catalogue import catalogue
from trimtab.planning.fact import Fact
from trimtab.planning.plan import Plan


def shown(plan: Plan, *, width: int = 120, is_quick: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    show_plan(console, plan, is_quick=is_quick)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def unwrapped(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("width", [80, 100, 120])
def test_each_hyperparameter_stands_whole_with_its_origin(width: int) -> None:
    plan = measured_plan()
    lines = shown(plan, width=width).splitlines()
    assert max(len(line) for line in lines) <= width
    for name in catalogue():
        origin = plan.decision(name).origin
        assert any(line.split()[:1] == [name] and f" {origin} " in line for line in lines), name


def test_what_the_run_will_take_is_told_against_the_limit() -> None:
    text = unwrapped(shown(measured_plan(memory_limit="6GiB")))
    assert "2.00 GiB at the peak of this run, 3.00 GiB in the worst case, 6.00 GiB allowed" in text
    assert "tokens in all" in text
    assert "an update, " in text


def test_what_was_not_predicted_is_said() -> None:
    plan = measured_plan(memory_limit="6GiB")
    unknown = replace(
        plan.predictions,
        peak_memory_bytes=None,
        worst_case_memory_bytes=None,
        step_time_s=None,
        total_time_s=None,
    )
    text = unwrapped(shown(replace(plan, predictions=unknown)))
    assert "not predicted; 6.00 GiB allowed" in text
    assert "not predicted: nothing was timed" in text


def test_each_probe_has_a_line_with_its_finding_and_its_seconds() -> None:
    _, _, measured = shown(measured_plan(), width=160).partition("measured, and its cost")
    lines = measured.splitlines()

    def line(probe: str) -> str:
        (found,) = [one for one in lines if one.startswith(f"{probe}  ")]
        return unwrapped(found)

    assert line("device").endswith("0.5 s")
    assert "444 GFLOP/s" in line("device")
    assert line("memory and speed") == (
        "memory and speed 6 real updates with micro-batches of 1 to 8 rows; peaks of 1.00 GiB to "
        "3.00 GiB; up to 1,200 tokens/s; 1 outgrew the memory 24 s"
    )
    assert line("precision").endswith("5 s")
    assert "bf16 0.5 s an update, gradient cosine 0.9991; fp16" in line("precision")
    assert "0.9900, overflows; fp32 1.25 s" in line("precision")
    assert "harm begins at 0.01" in line("learning-rate range")
    assert "12.3 examples (8 to 20), from 72 updates" in line("gradient noise")
    assert line("in all") == "in all 37.5 s"


def test_a_probe_that_failed_says_so() -> None:
    plan = measured_plan()
    kept = [fact for fact in plan.facts if not fact.id.startswith(("trials", "rate_range"))]
    failures = [
        Fact("trials.failure", "the process was killed"),
        Fact("rate_range.failure", "no room to keep the weights"),
    ]
    text = shown(replace(plan, facts=(*kept, *failures)))
    assert "the process was killed" in text
    assert "no room to keep the weights" in text


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, "12.3 examples (8 to 20), from 72 updates at the base weights 40 s"),
        ({"unidentified": "0 is inside"}, "not identified: 0 is inside 40 s"),
        ({"failure": "it was killed"}, "it was killed 40 s"),
    ],
)
def test_a_probe_of_the_noise_scale_says_what_it_came_to(
    told: dict[str, str], expected: str
) -> None:
    plan = measured_plan()
    probed = [Fact("noise.key", "a key", cost_s=40.0)]
    probed += [Fact(f"noise.{name}", text) for name, text in told.items()]
    text = unwrapped(shown(replace(plan, facts=(*plan.facts, *probed)), width=160))
    assert f"gradient noise {expected}" in text


def test_what_was_measured_in_vain_has_a_line_and_its_seconds() -> None:
    plan = measured_plan()
    facts = [
        Fact("discarded.trials", 20.0, "s", cost_s=20.0),
        Fact("discarded.rate_range", 5.0, "s", cost_s=5.0),
    ]
    text = unwrapped(shown(replace(plan, facts=(*plan.facts, *facts)), width=160))
    assert (
        "not used memory and speed, learning-rate range: measured under settings that the plan "
        "does not take 25 s in all 62.5 s"
    ) in text


def test_a_quick_plan_says_that_nothing_was_measured() -> None:
    measured = measured_plan()
    untried = tuple(one for one in measured.facts if not one.id.startswith("trials"))
    text = shown(replace(measured, facts=untried), is_quick=True)
    assert "Plan, quick: rules and arithmetic; nothing was measured" in text
    assert "memory and speed" not in text
    earlier = Fact("device.name", "card", method="asked; recalled, measured on 2026-01-02")
    recalled = shown(replace(measured, facts=(*untried, earlier)), is_quick=True)
    assert "measurements are earlier ones, none is new" in recalled
    assert "Plan, quick" not in shown(measured_plan())


def test_what_was_not_measured_ends_the_plan() -> None:
    plan = replace(measured_plan(), not_measured=("the weather",), warnings=("mind [the] gap",))
    text = shown(plan)
    assert text.strip().endswith("Not measured: the weather.")
    assert "! mind [the] gap" in text
