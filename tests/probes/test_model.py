from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny import save_tiny_model

from trimtab.engine.observer import Silent
from trimtab.hyperparameters.layers import resolve
from trimtab.planning.questions import ModelQuestion
from trimtab.workflow.materials import Materials


def one_row(folder: Path) -> str:
    """Rows are read before any weight is, whatever is asked of the model."""
    rows = folder / "rows.jsonl"
    rows.write_text('{"text": "the quick brown fox"}\n', encoding="utf-8")
    return str(rows)


@pytest.mark.parametrize(("architecture", "is_tied"), [("llama", True), ("mistral", False)])
def test_the_head_is_known_to_be_tied(architecture: str, is_tied: bool, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, architecture)
    asked = {"model": str(folder), "dataset": one_row(tmp_path), "device": "cpu"}
    materials = Materials(resolve(values=asked).config, Silent())
    (found,) = (
        fact.value for fact in materials.answer(ModelQuestion()) if fact.id == "model.head_is_tied"
    )
    assert found is is_tied


def test_the_check_of_joined_rows_says_on_what_it_was_made(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "llama")
    rows = one_row(tmp_path)
    asked = {"model": str(folder), "dataset": rows, "device": "cpu", "padding": "longest"}
    materials = Materials(resolve(values=asked).config, Silent())
    (found,) = (
        fact for fact in materials.answer(ModelQuestion()) if fact.id == "model.packing_refusal"
    )
    assert found.value is None
    assert "on a small model" in found.method
    assert "not checked where rows are padded" in found.method
