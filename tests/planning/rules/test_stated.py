from __future__ import annotations

from pathlib import Path

import pytest
from planning.facts import CARD_24GB, LLAMA_135M, config, data, planned

from trimtab.hyperparameters.layers import resolve


def test_the_format_and_its_reason_are_the_probes() -> None:
    found = planned().decision("dataset_format")
    assert (found.value, found.origin) == ("prompt_completion", "measured")
    assert found.because == "columns prompt and completion"


@pytest.mark.parametrize(
    ("templated", "has_template", "expected"),
    [(True, True, "model"), (True, False, "plain"), (False, True, "none"), (False, False, "none")],
)
def test_chat_template(templated: bool, has_template: bool, expected: str) -> None:
    model = LLAMA_135M | {"model.chat_template": has_template}
    plan = planned(model=model, rows=data(templated=templated))
    assert plan.decision("chat_template").value == expected
    assert plan.decision("chat_template").origin == "measured"


@pytest.mark.parametrize(
    ("asked", "templated", "is_told"),
    [("model", False, True), ("auto", False, False), ("model", True, False)],
)
def test_a_template_that_no_row_takes_is_told(asked: str, templated: bool, is_told: bool) -> None:
    plan = planned(rows=data(format="text", templated=templated), chat_template=asked)
    told = "chat_template has no effect: text rows are taken as they stand."
    assert plan.warnings == ((told,) if is_told else ())


@pytest.mark.parametrize(
    ("asked", "expected"), [("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1")]
)
def test_device(asked: str, expected: str) -> None:
    plan = planned(config(device=asked), device=CARD_24GB)
    assert plan.settings().device == expected
    assert "constructed card of 24 GB" in plan.decision("device").because


def test_a_cpu_is_said_to_be_one() -> None:
    decision = planned().decision("device")
    assert decision.value == "cpu"
    assert "no CUDA device" in decision.because


def test_rows_left_out_and_copies_are_told() -> None:
    plan = planned(rows=data(num_bad_rows=3, num_duplicate_rows=37))
    assert "3 rows cannot be trained on and are left out." in plan.warnings
    one = planned(rows=data(num_bad_rows=1))
    assert one.warnings == ("1 row cannot be trained on and is left out.",)
    assert any("37 of 1,024 rows" in warning for warning in plan.warnings)
    assert planned().warnings == ()


def test_output_dir() -> None:
    assert planned().decision("output_dir").value == "runs/r"
    assert planned().decision("output_dir").origin == "rule"
    assert planned(output_dir="runs/r").decision("output_dir").origin == "user"


def test_reasons_name_the_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model: m\ndataset: d\nseed: 5\n")
    plan = planned(resolve(file=file, options=[("seed", "6"), ("logging_steps", "2")]))
    assert plan.decision("model").because == f"set in {file}:1"
    assert plan.decision("seed").because == f"set by --seed, over 5 in {file}:3"
    assert plan.decision("logging_steps").because == "set by --logging-steps"
    assert plan.decision("data_seed").value == 6


@pytest.mark.parametrize(
    ("name", "row_format", "is_used"),
    [
        ("completion_only_loss", "prompt_completion", True),
        ("completion_only_loss", "alpaca", True),
        ("completion_only_loss", "messages", False),
        ("assistant_only_loss", "sharegpt", True),
        ("assistant_only_loss", "messages", True),
        ("assistant_only_loss", "text", False),
    ],
)
def test_what_is_trained_on_is_told_by_format(name: str, row_format: str, is_used: bool) -> None:
    plan = planned(rows=data(format=row_format))
    told = "38% of the tokens are trained on" if is_used else f"not used: rows are {row_format}"
    assert plan.decision(name).because == told
    assert plan.warnings == ()
    asked = planned(rows=data(format=row_format), **{name: False})
    assert asked.decision(name).value is False
    assert (f"{name} has no effect: rows are {row_format}." in asked.warnings) is not is_used


def test_a_text_field_is_of_text_rows() -> None:
    text = data(format="text")
    assert planned(rows=text, dataset_text_field="body").warnings == ()
    assert len(planned(dataset_text_field="body").warnings) == 1


@pytest.mark.parametrize(("column", "is_told"), [("other", True), ("body", False)])
def test_a_text_field_beside_a_mapped_text_is_told(column: str, is_told: bool) -> None:
    plan = planned(
        rows=data(format="text"), dataset_text_field="body", dataset_columns={"text": column}
    )
    told = "dataset_text_field has no effect: dataset_columns maps text to other."
    assert plan.warnings == ((told,) if is_told else ())
    because = plan.decision("dataset_text_field").because
    assert because.endswith("not used: dataset_columns maps text") is is_told
