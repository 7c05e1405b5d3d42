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
    assert "3 rows cannot be trained on and left out." in plan.warnings
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
