"""Which rows' prompts the model is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.settings import tiny_settings
from support.streamed import materials_of_long_file

from trimtab.workflow.samples import sample_prompts
from trimtab.workflow.training_rows import rows_question


def test_of_a_long_file_the_next_row_that_is_trained_on_is_asked(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"prompt": "fox " * (90 if n in (0, 1, 4, 8) else 1), "completion": f"answer {n}"}
        for n in range(9)
    ]
    materials = materials_of_long_file(tmp_path, tiny_llama_folder, rows, monkeypatch)
    settings = tiny_settings(report_samples=3)
    prompts = sample_prompts(materials, materials.rows(rows_question(settings)), settings)
    assert [prompt.reference for prompt in prompts] == ["answer 2", "answer 5"]
