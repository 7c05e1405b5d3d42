"""The tables hold the record's figures, and say what they leave out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from support.run_folders import DATA, PLAN, write_run

from trimtab.report import story, tables
from trimtab.report.collect import RunRecord, collect


def recorded(root: Path, **changes: Any) -> RunRecord:
    return collect(write_run(root / "mine", **changes).root)


def test_predictions_stand_beside_what_came_of_them(tmp_path: Path) -> None:
    rows = {row.quantity: row for row in tables.comparisons(recorded(tmp_path))}
    assert rows == {
        "weight updates": tables.Comparison("weight updates", "60", "60", "×1.00"),
        "tokens an update": tables.Comparison("tokens an update", "1,000", "1,000", "×1.00"),
        "peak memory": tables.Comparison("peak memory", "1.00 GiB", "1.50 GiB", "×1.50"),
        # The first update is left out: it took 10 s.
        "time of an update": tables.Comparison("time of an update", "2 s", "4 s", "×2.00"),
        "time in all": tables.Comparison("time in all", "2.2 min", "4.3 min", "×2.00"),
    }


def test_a_run_that_stopped_is_not_compared_in_time(tmp_path: Path) -> None:
    unpredicted = replace(
        PLAN, predictions=replace(PLAN.predictions, step_time_s=None, peak_memory_bytes=None)
    )
    record = recorded(tmp_path, plan=unpredicted, status="stopped", num_steps=1)
    rows = {row.quantity: row for row in tables.comparisons(record)}
    assert (rows["time in all"].actual, rows["time in all"].ratio) == ("", "")
    assert rows["peak memory"].predicted == ""
    assert "time of an update" not in rows


def test_what_was_asked_keeps_its_layer_and_what_was_overruled() -> None:
    text = (
        'model: "a  # b"  # file, config.yaml:1\n'
        "max_steps: 10  # command line, --max-steps\n"
        "# overruled: num_train_epochs: 3  # file, config.yaml:4; max_steps is set\n"
        "no comment: here\n"
    )
    assert tables.asked(text) == (
        tables.Asked("model", '"a  # b"', "file, config.yaml:1"),
        tables.Asked("max_steps", "10", "command line, --max-steps"),
        tables.Asked("num_train_epochs", "3", "file, config.yaml:4; max_steps is set", lost=True),
        tables.Asked("no comment", "here", ""),
    )
    assert tables.asked("") == ()


def test_decisions_stand_by_family_and_unknown_ones_are_kept() -> None:
    odd = replace(PLAN.decisions[0], name="from_the_future")
    families = tables.families(replace(PLAN, decisions=(*PLAN.decisions, odd)))
    names = {family.name: [one.name for one in family.decisions] for family in families}
    assert names["model"] == ["model", "method"]
    assert names["precision and memory"] == ["precision", "device", "memory_limit"]
    assert names["other"] == ["from_the_future"]
    assert tables.meaning("from_the_future") == ""
    assert tables.meaning("learning_rate")


def test_decided_values_are_as_a_configuration_holds_them() -> None:
    assert tables.decided_value("max_length", 16384) == "16384"
    assert tables.decided_value("memory_limit", 13 * 2**30) == "13.00 GiB"
    assert tables.decided_value("packing", True) == "true"
    assert tables.decided_value("learning_rate", 2e-4) == "2e-4"
    assert tables.fact_value(2**30, "bytes") == "1.00 GiB"
    assert tables.fact_value(1234, "tokens") == "1,234 tokens"
    assert tables.fact_value(True, None) == "true"


def test_data_is_told_with_the_shares_that_matter(tmp_path: Path) -> None:
    figures = {one.label: one for one in tables.data_figures(recorded(tmp_path))}
    assert figures["Tokens"] == story.Figure("Tokens", "190,000", "50% of them trained on")
    assert figures["Unusable rows"].value == "2"
    assert figures["Repeated rows"].value == "3"
    assert figures["Equal to held-out rows"].value == "1"
    clean = replace(DATA, num_bad_rows=0, num_duplicate_rows=0, num_duplicates_of_held_out=0)
    labels = [one.label for one in tables.data_figures(recorded(tmp_path / "b", data=clean))]
    assert labels == ["Rows read", "Trained on", "Held out", "Tokens"]


def test_prompts_of_training_rows_are_not_passed_off_as_held_out(tmp_path: Path) -> None:
    assert "to held-out prompts" in tables.samples_sentence(recorded(tmp_path))
    without = recorded(tmp_path / "b", data=replace(DATA, num_eval_examples=0))
    assert "rows that it was trained on" in tables.samples_sentence(without)


def test_truncation_is_told_even_where_it_cost_nothing(tmp_path: Path) -> None:
    assert tables.truncation_sentence(recorded(tmp_path)) == (
        "4 rows cut: 7,000 tokens gone, 5,000 of them to be learned (5.0% of all such). "
        "1 row dropped."
    )
    clean = replace(DATA, num_truncated=0, num_dropped=0)
    assert tables.truncation_sentence(recorded(tmp_path / "b", data=clean)) == (
        "No row was cut or dropped for its length."
    )
