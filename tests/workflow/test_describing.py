"""The record of a long file's data, of rows that are made as they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.settings import tiny_settings
from support.streamed import materials_of_long_file

from trimtab.data.streaming import RowIndex
from trimtab.workflow.describing import data_record
from trimtab.workflow.training_rows import rows_question


def test_examples_are_rows_that_are_trained_on(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"{n} " + "fox " * 90 * (n in (0, 2)), "completion": "a"} for n in range(9)]
    materials = materials_of_long_file(tmp_path, tiny_llama_folder, rows, monkeypatch)
    record = data_record(materials, materials.rows(rows_question(tiny_settings())))
    shown = ["".join(part.text for part in example) for example in record.examples]
    assert [next(n for n in range(9) if f"{n} " in text) for text in shown] == [1, 3, 4]


def test_no_row_is_read_alone_to_tell_whether_a_template_is_applied(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": f"the fox {n}"} for n in range(9)]
    materials = materials_of_long_file(tmp_path, tiny_llama_folder, rows, monkeypatch)
    monkeypatch.delattr(RowIndex, "row")
    assert not data_record(materials, materials.rows(rows_question(tiny_settings()))).templated
