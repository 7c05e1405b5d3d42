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
        "4 rows cut: 7,000 tokens gone, 5,000 fewer to be learned (5.0% of all such). "
        "1 row dropped."
    )
    clean = replace(DATA, num_truncated=0, num_dropped=0)
    assert tables.truncation_sentence(recorded(tmp_path / "b", data=clean)) == (
        "No row was cut or dropped for its length."
    )
