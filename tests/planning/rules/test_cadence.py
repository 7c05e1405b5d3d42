from __future__ import annotations

import math

import pytest
from planning.facts import as_facts, config, data, planned

from trimtab.planning.decision import Decision
from trimtab.planning.rules.cadence import decide_cadence

# 60 updates of 16 rows of 160 tokens: 153,600 tokens; the tests choose what an evaluation costs.
RUN = {"max_steps": 60, "rows": data(num_rows=960 + 48), "global_batch_size": 16}
RUN_TOKENS = 60 * 16 * 160


def eval_steps(eval_tokens: int, **values: object) -> Decision:
    plan = planned(**(RUN | values), training_rows={"eval_num_tokens": eval_tokens})  # type: ignore[arg-type]
    return plan.decision("eval_steps")


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.001, 6),  # ten evaluations cost 1%
        (0.01, 6),  # ten cost a tenth, just allowed
        (0.0101, 7),  # nine are allowed
        (0.02, 12),
        (0.09, 60),
        (0.5, 60),  # not one is allowed: the end is measured all the same
    ],
)
def test_auto_evaluation_costs_at_most_a_tenth(share: float, expected: int) -> None:
    plan = planned(**RUN, eval_dataset=48 / 1008)  # type: ignore[arg-type]
    assert plan.predictions.tokens_per_step == pytest.approx(16 * 160)
    decision = eval_steps(int(share * RUN_TOKENS), eval_dataset=48 / 1008)
    assert decision.value == expected
    assert decision.origin == "rule"
    assert f"{RUN_TOKENS:,}" in decision.because
    assert ("a tenth" in decision.because) is (share > 0.01)


def test_the_reason_counts_every_evaluation() -> None:
    decision = eval_steps(int(0.0101 * RUN_TOKENS), eval_dataset=48 / 1008)
    assert decision.value == 7
    assert decision.because.startswith("9 evaluations of ")  # 7, 14, … 56 and the end


def test_very_short_runs_evaluate_at_each_update() -> None:
    assert eval_steps(16, max_steps=4).value == 1


@pytest.mark.parametrize(("asked", "expected"), [(7, 7), (0.25, 15), (0.07, 5), (1, 1)])
def test_asked_evaluation(asked: float, expected: int) -> None:
    decision = eval_steps(16, eval_steps=asked)
    assert (decision.value, decision.origin) == (expected, "user")


def test_evaluation_after_each_epoch() -> None:
    plan = planned(eval_strategy="epoch", global_batch_size=16)
    assert plan.settings().eval_steps == 61
    assert plan.settings().eval_strategy == "epoch"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"eval_strategy": "no"}, "eval_strategy is no"),
        ({"eval_dataset": "none"}, "nothing is held out"),
        ({"eval_strategy": "epoch"}, "eval_strategy is epoch"),
    ],
)
def test_eval_steps_without_effect_are_told(values: dict[str, object], told: str) -> None:
    plan = planned(eval_steps=5, **values)
    assert plan.decision("eval_steps").value != 5
    assert any(one.startswith("eval_steps has no effect") and told in one for one in plan.warnings)
    assert plan.decision("eval_steps").origin == "rule"
    assert planned(**values).warnings == ()


def test_no_held_out_rows_means_no_evaluation() -> None:
    assert planned(eval_dataset="none").settings().eval_steps == 0
    assert planned(eval_strategy="no", eval_dataset=0.1).settings().eval_steps == 0


@pytest.mark.parametrize(
    ("asked", "num_steps", "expected"),
    [("auto", 183, 46), ("auto", 3, 3), (7, 183, 7), (0.5, 183, 92), (0.1, 10_000, 1000)],
)
def test_saving(asked: object, num_steps: int, expected: int) -> None:
    plan = planned(max_steps=num_steps, save_steps=asked)
    assert plan.settings().save_steps == expected


def save_steps(
    step_time_s: float | None,
    num_steps: int,
    *,
    checkpoint_bytes: float = 1e6,
    **facts: float,
) -> Decision:
    """An earlier run's checkpoint, where its seconds are given, was of the same size."""
    rows = {"rows.eval_num_examples": 0, "rows.eval_num_tokens": 0}
    if "saving__checkpoint_s" in facts:
        facts = {"saving__checkpoint_bytes": checkpoint_bytes} | facts
    ruling = decide_cadence(
        config(),
        as_facts(rows | {name.replace("__", "."): value for name, value in facts.items()}),
        num_steps=num_steps,
        num_updates_per_epoch=num_steps,
        tokens_per_step=1000.0,
        checkpoint_bytes=checkpoint_bytes,
        step_time_s=step_time_s,
    )
    return ruling.decisions[-1]


@pytest.mark.parametrize(
    ("checkpoint_s", "expected"),
    [
        (0.4, 25),  # four saves take 1.6%
        (0.5, 25),  # just 2%
        (0.51, 34),  # three are allowed
        (1.0, 50),
        (2.0, 100),
        (60.0, 100),  # not one is allowed: the end is saved all the same
    ],
)
def test_saving_takes_at_most_a_fiftieth_of_the_time(checkpoint_s: float, expected: int) -> None:
    made = save_steps(1.0, 100, saving__checkpoint_s=checkpoint_s)
    assert (made.value, made.origin) == (expected, "measured")
    assert made.facts == ("saving.checkpoint_s",)
    assert ("over a fiftieth" in made.because) is (expected > 25)


def test_a_crash_costs_at_most_ten_minutes_of_a_long_run() -> None:
    made = save_steps(2.0, 10_000, saving__checkpoint_s=1.0)
    assert made.value == math.ceil(10_000 / math.ceil(20_000 / 600))
    assert "a crash loses at most 590 s" in made.because
    slow = save_steps(2.0, 10_000, saving__checkpoint_s=100.0)
    assert slow.value == 2_500
    assert "34 would take" in slow.because


def test_a_save_is_timed_by_its_size_and_the_disk() -> None:
    made = save_steps(1.0, 100, checkpoint_bytes=1e9, disk__save_bytes_per_s=1e9)
    assert (made.value, made.origin) == (100, "measured")
    assert made.facts == ("disk.save_bytes_per_s",)
    assert made.limits == "the time of a save is that of 1,000 MB at 1,000 MB/s"
    run_before = save_steps(
        1.0, 100, checkpoint_bytes=1e9, disk__save_bytes_per_s=1e9, saving__checkpoint_s=0.1
    )
    assert run_before.value == 25


@pytest.mark.parametrize(("earlier_bytes", "is_used"), [(7e8, True), (6e8, False), (1.6e9, False)])
def test_the_time_of_a_save_of_another_size_tells_nothing(
    earlier_bytes: float, is_used: bool
) -> None:
    made = save_steps(
        1.0,
        100,
        checkpoint_bytes=1e9,
        disk__save_bytes_per_s=1e9,
        saving__checkpoint_s=0.1,
        saving__checkpoint_bytes=earlier_bytes,
    )
    assert made.facts == (("saving.checkpoint_s",) if is_used else ("disk.save_bytes_per_s",))


def test_what_is_assumed_of_a_save_is_said() -> None:
    made = save_steps(1.0, 100, checkpoint_bytes=1e8)
    assert (made.value, made.origin) == (34, "rule")
    assert made.limits is not None and "not measured; 200 MB/s are assumed" in made.limits
    unknown = save_steps(None, 100, saving__checkpoint_s=60.0)
    assert (unknown.value, unknown.origin) == (25, "rule")
    assert unknown.limits == "the time of an update is not known"
    assert unknown.alternatives[0].value == 13


def test_auto_intervals_tell_what_others_would_cost() -> None:
    decision = eval_steps(int(0.02 * RUN_TOKENS), eval_dataset=48 / 1008)
    told = {one.value: one.because for one in decision.alternatives}
    each = int(0.02 * RUN_TOKENS)
    assert told == {
        6: f"would cost {10 * each:,} tokens",
        24: f"would cost {3 * each:,} tokens",
    }
    assert decision.limits is not None
