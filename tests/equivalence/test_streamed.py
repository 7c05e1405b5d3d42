"""A run whose rows are tokenised as it goes ends as one whose rows were tokenised beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.runs import tiny_config, write_rows

import trimtab
from trimtab.data import sampling, streaming
from trimtab.data import updates as updates_module
from trimtab.engine.observer import Silent
from trimtab.runs.records import UpdateRecord


class Aborting(Silent):
    """As Ctrl-C twice at the fifth update."""

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        if record.step == 5:
            raise KeyboardInterrupt


@pytest.fixture
def config(tmp_path: Path, tiny_llama_folder: Path) -> dict[str, Any]:
    write_rows(tmp_path / "rows.jsonl", 64)
    return tiny_config(
        tmp_path,
        tiny_llama_folder,
        max_steps=10,
        save_steps=3,
        eval_steps=5,
        eval_dataset=0.125,
        max_length=64,
        per_device_train_batch_size=4,
        activation_checkpointing="off",
        learning_rate=1e-3,
        method="lora",
    )


def weights(run: Path) -> bytes:
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


def test_streamed_whole_and_resumed_runs_end_alike(
    tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    ended = trimtab.train({**config, "output_dir": str(whole)})
    monkeypatch.setattr(streaming, "MIN_STREAMED_ROWS", 60)
    monkeypatch.setattr(updates_module, "WINDOW_ROWS", 16)
    streamed, cut_off = tmp_path / "streamed", tmp_path / "cut off"
    summary = trimtab.train({**config, "output_dir": str(streamed)})
    assert weights(streamed) == weights(whole)
    assert (summary.eval_loss, summary.num_tokens) == (ended.eval_loss, ended.num_tokens)
    with pytest.raises(trimtab.Interrupted):
        trimtab.train({**config, "output_dir": str(cut_off)}, observer=Aborting())
    trimtab.resume(cut_off)
    assert weights(cut_off) == weights(whole)
    told = [json.loads((run / "data.json").read_text()) for run in (streamed, whole)]
    assert [data["num_tokenised"] is None for data in told] == [False, True]


def test_packed_as_it_goes_a_resumed_run_ends_as_one_left_alone(
    tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "MIN_STREAMED_ROWS", 60)
    monkeypatch.setattr(updates_module, "PACKED_WINDOW_ROWS", 10)
    batch = {"per_device_train_batch_size": 1, "global_batch_size": 1}
    packed = {**config, **batch, "packing": True, "max_length": 200, "num_train_epochs": 2}
    del packed["max_steps"]
    alone, cut_off = tmp_path / "alone", tmp_path / "cut off"
    trimtab.train({**packed, "output_dir": str(alone)})
    with pytest.raises(trimtab.Interrupted):
        trimtab.train({**packed, "output_dir": str(cut_off)}, observer=Aborting())
    (state,) = (cut_off / "checkpoints").glob("*/state.json")
    assert json.loads(state.read_text())["position"]["window_start"] > 0
    trimtab.resume(cut_off)
    assert weights(cut_off) == weights(alone)


def test_how_sure_the_number_of_packed_rows_is_is_told(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "MIN_STREAMED_ROWS", 60)
    packed = {**config, "packing": True, "max_length": 200, "num_train_epochs": 1}
    del packed["max_steps"]
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 16)
    monkeypatch.setattr(sampling, "NUM_LARGEST_ROWS", 1)
    estimated = trimtab.plan(packed, quick=True)
    assert "an estimated" in estimated.decision("num_train_epochs").because
    assert any("So are packed rows: an estimated" in told for told in estimated.warnings)


def test_rows_that_change_before_resuming_are_refused(
    tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "MIN_STREAMED_ROWS", 60)
    with pytest.raises(trimtab.Interrupted):
        trimtab.train(config, observer=Aborting())
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text().replace("the answer is", "the answer was", 1))
    with pytest.raises(trimtab.DataError, match="the rows are not those that were planned"):
        trimtab.resume(Path(config["output_dir"]))
