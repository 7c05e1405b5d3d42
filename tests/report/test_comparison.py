"""Predictions stand beside what came of them; what cannot be compared says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from support.run_folders import PLAN, write_run

from trimtab.planning.plan import Plan
from trimtab.report.collect import RunRecord, collect
from trimtab.report.comparison import Comparison, comparisons, verdict


def recorded(root: Path, **changes: Any) -> RunRecord:
    return collect(write_run(root / "mine", **changes).root)


def predicting(**changes: Any) -> Plan:
    return replace(PLAN, predictions=replace(PLAN.predictions, **changes))


def by_quantity(record: RunRecord) -> dict[str, Comparison]:
    return {one.quantity: one for one in comparisons(record)}


def test_each_prediction_has_its_actual_its_error_and_a_sentence(tmp_path: Path) -> None:
    told = {
        name: (one.predicted_text, one.actual_text, one.error_text, one.sentence)
        for name, one in by_quantity(recorded(tmp_path)).items()
    }
    assert told == {
        "peak memory": ("1.00 GiB", "1.50 GiB", "−33%", "Predicted 33% too low."),
        "worst case of memory": (
            "1.75 GiB",
            "1.50 GiB",
            "",
            "Held: the run stayed 14% under it.",
        ),
        # The mean of the updates after the first, which took 10 s.
        "seconds an update": ("2 s", "4 s", "−50%", "Predicted 50% too low."),
        "time in all": ("2.2 min", "4.3 min", "−50%", "Predicted 50% too low."),
        "tokens an update": ("1,000", "1,000", "0%", "As predicted."),
    }


def test_a_worst_case_that_was_outgrown_says_so(tmp_path: Path) -> None:
    plan = predicting(worst_case_memory_bytes=2**30)
    row = by_quantity(recorded(tmp_path, plan=plan))["worst case of memory"]
    assert row.sentence == "Outgrown by 50%."


def test_a_prediction_that_was_not_made_is_told(tmp_path: Path) -> None:
    plan = predicting(worst_case_memory_bytes=None, step_time_s=None)
    rows = by_quantity(recorded(tmp_path, plan=plan))
    for name in ("worst case of memory", "seconds an update"):
        assert rows[name].predicted_text == ""
        assert rows[name].error is None
        assert rows[name].sentence == "The plan did not predict it."
    assert rows["seconds an update"].actual_text == "4 s"


def test_a_run_that_stopped_says_what_it_cannot_be_compared_in(tmp_path: Path) -> None:
    rows = by_quantity(recorded(tmp_path, status="stopped", num_steps=1))
    assert rows["time in all"].actual_text == ""
    assert rows["time in all"].sentence == "The run did not come to its end."
    assert "first one warms up" in rows["seconds an update"].sentence
    assert rows["peak memory"].error_text == "−33%"


def test_without_a_plan_or_an_update_there_is_nothing_to_compare(tmp_path: Path) -> None:
    record = recorded(tmp_path)
    assert comparisons(replace(record, plan=None)) == ()
    assert comparisons(replace(record, updates=())) == ()
    assert verdict(()) == ""


def test_the_verdict_names_what_was_furthest_off(tmp_path: Path) -> None:
    rows = comparisons(recorded(tmp_path, plan=predicting(step_time_s=1.0)))
    assert verdict(rows) == (
        "The prediction that was furthest off is seconds an update: 1 s predicted, 4 s measured "
        "(−75%)."
    )
    exact = predicting(peak_memory_bytes=3 * 2**29, step_time_s=4.0, total_time_s=260.0)
    rows = comparisons(recorded(tmp_path / "b", plan=exact))
    assert verdict(rows) == "The run came to what was predicted."
