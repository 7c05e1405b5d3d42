"""Trackers beside the ledgers: fed, and never a reason to stop."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.runs import read_jsonl, tiny_config

import trimtab
from trimtab.engine.observer import Silent
from trimtab.errors import ConfigError
from trimtab.workflow import tracking

# peft asks a model by the older of transformers' two names.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


class Remembering:
    """A tracker that remembers, and fails from a given update on."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self.fails_at is not None and step >= self.fails_at:
            raise ConnectionError("the server went away")
        self.logged.append((step, dict(values)))

    def finish(self) -> None:
        self.finished += 1


class Listening(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, text: str) -> None:
        self.notes.append(text)


def trained(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, tracker: Any
) -> tuple[Path, Listening]:
    """A run of three updates that reports to `tracker` in wandb's place."""
    monkeypatch.setitem(tracking.TRACKERS, "wandb", tracker)
    monkeypatch.setattr(tracking, "find_spec", lambda name: importlib.util.find_spec("json"))
    observer = Listening()
    config = tiny_config(tmp_path, model, max_steps=3, report_samples=0, report_to="wandb")
    summary = trimtab.train(config, observer=observer)
    return Path(summary.run), observer


def test_a_tracker_gets_what_the_ledger_has(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Remembering()
    run, observer = trained(
        tmp_path, tiny_llama_folder, monkeypatch, lambda folder, values: tracker
    )
    updates = [row for row in read_jsonl(run / "metrics.jsonl") if "loss" in row]
    told = {step: values for step, values in tracker.logged if "train/loss" in values}
    assert {row["step"]: row["loss"] for row in updates} == {
        step: values["train/loss"] for step, values in told.items()
    }
    assert any("eval/loss" in values for _, values in tracker.logged)
    assert tracker.finished == 1
    assert not any("tracker" in note for note in observer.notes)


def test_a_tracker_that_fails_is_left_and_the_run_goes_on(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Remembering(fails_at=2)
    run, observer = trained(
        tmp_path, tiny_llama_folder, monkeypatch, lambda folder, values: tracker
    )
    assert len([row for row in read_jsonl(run / "metrics.jsonl") if "loss" in row]) == 3
    (note,) = [note for note in observer.notes if "tracker" in note]
    assert "wandb failed (ConnectionError: the server went away)" in note
    assert max(step for step, _ in tracker.logged) == 1


def test_a_tracker_that_cannot_be_opened_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(folder: Path, values: Mapping[str, Any]) -> tracking.Tracker:
        raise PermissionError("not logged in")

    monkeypatch.setitem(tracking.TRACKERS, "wandb", opened)
    observer = Listening()
    plan = trimtab.Plan((), {}, (), None)  # type: ignore[arg-type]
    found = tracking.tracking(observer, "wandb", tmp_path, plan)
    found.open()
    found.finish()
    assert "not logged in" in observer.notes[0]


def test_a_tracker_is_not_opened_for_a_run_that_does_not_begin(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any) -> None:
        raise ConfigError("no room")

    tracker = Remembering()
    opened: list[Path] = []

    def open_tracker(folder: Path, values: Mapping[str, Any]) -> Remembering:
        opened.append(folder)
        return tracker

    monkeypatch.setattr("trimtab.workflow.carrying_out.check_room_on_disk", no_room)
    with pytest.raises(ConfigError, match="no room"):
        trained(tmp_path, tiny_llama_folder, monkeypatch, open_tracker)
    assert len(opened) == tracker.finished == 0


def test_a_library_that_is_not_installed_is_told_before_the_run(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    config = tiny_config(tmp_path, tiny_llama_folder, report_to="trackio")
    with pytest.raises(ConfigError, match=r"pip install 'trimtab\[trackio\]'"):
        trimtab.train(config)
    assert not (tmp_path / "run").exists()


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = tracking.TRACKERS["tensorboard"](tmp_path, {"learning_rate": 1e-3})
    tracker.log({"train/loss": 2.5}, 1)
    tracker.log({"train/loss": 1.5, "eval/loss": 2.0}, 2)
    tracker.finish()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("train/loss")] == [(1, 2.5), (2, 1.5)]
    assert [one.value for one in events.Scalars("eval/loss")] == [2.0]
