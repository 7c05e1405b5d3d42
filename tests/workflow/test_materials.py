"""What is loaded, from where, and that it is told while it takes time."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest

from trimtab.engine.observer import Silent
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.workflow.materials import Materials


class Activities(Silent):
    def __init__(self) -> None:
        self.names: list[str] = []

    def activity(self, name: str, total: int | None = None) -> None:
        self.names.append(name)


def test_fetching_a_model_is_told(
    tiny_llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, **__: str(tiny_llama_folder)
    )
    observer = Activities()
    config = TrainingConfig(model="owner/name", dataset="unused")
    assert Materials(config, observer).source.folder == tiny_llama_folder
    assert observer.names == ["finding the model", "fetching owner/name from the hub"]


def test_a_folder_named_for_evaluation_is_not_asked_for_its_training_split(
    tiny_llama_folder: Path, tmp_path: Path
) -> None:
    rows = {"train/train.jsonl": "trained", "ev/test.jsonl": "tested"}
    for name, answer in rows.items():
        (tmp_path / name).parent.mkdir()
        row = {"prompt": "q", "completion": answer}
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    config = TrainingConfig(
        model=str(tiny_llama_folder),
        dataset=str(tmp_path / "train"),
        eval_dataset=str(tmp_path / "ev"),
    )
    materials = Materials(config, Silent())
    assert materials.corpus.files == (str(tmp_path / "train/train.jsonl"),)
    assert materials.eval_corpus.files == (str(tmp_path / "ev/test.jsonl"),)
