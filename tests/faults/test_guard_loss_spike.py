"""A batch whose loss jumps: stopped, skipped or rewound before, as the user chose."""

from __future__ import annotations

import json
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.faults import digest_of_tensors
from support.runs import read_jsonl, tiny_config, write_rows

import trimtab
from trimtab.cli.app import run as command
from trimtab.data.rows import MicroBatch
from trimtab.engine import step
from trimtab.engine.observer import Silent
from trimtab.models.adapters import Model
from trimtab.runs.records import EventRecord, UpdateRecord
from trimtab.workflow.recovering import MAX_REWINDS

NUM_ROWS = 400
NUM_STEPS = 26
BAD_UPDATE = 22


def config_of(folder: Path, model: Path, **changes: Any) -> dict[str, Any]:
    """One micro-batch an update, and fewer updates than an epoch has."""
    folder.mkdir(exist_ok=True)
    write_rows(folder / "rows.jsonl", NUM_ROWS)
    common = {
        "per_device_train_batch_size": 8,
        "max_steps": NUM_STEPS,
        "save_steps": 6,
        "report_samples": 0,
        "lora_dropout": 0.1,
        "eval_dataset": "none",
    }
    return tiny_config(folder, model, **{**common, **changes})


def rows_of_updates() -> list[tuple[int, ...]]:
    """The rows of each update of the first epoch, as the order is seeded."""
    order = np.random.Generator(np.random.PCG64([42, 0])).permutation(NUM_ROWS).tolist()
    return [tuple(order[start : start + 8]) for start in range(0, NUM_ROWS, 8)]


class Rows:
    """The rows of every forward and backward pass, and which of them have a high loss."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes: list[tuple[int, ...]] = []
        self.bad: set[int] = set()
        original = step.summed_loss

        def summed_loss(model: Model, batch: MicroBatch) -> torch.Tensor:
            self.passes.append(batch.row_ids)
            loss = original(model, batch)
            return loss * 3.0 if self.bad.intersection(batch.row_ids) else loss

        monkeypatch.setattr(step, "summed_loss", summed_loss)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    return Rows(monkeypatch)


class Breaking(Silent):
    """Interrupts after an update, or aborts at the first event of a kind."""

    def __init__(self, *, update: int = -1, event: str = "") -> None:
        self._update = update
        self._event = event

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        if record.step == self._update:
            signal.raise_signal(signal.SIGINT)

    def happened(self, event: EventRecord) -> None:
        if event.event == self._event:
            raise KeyboardInterrupt


def updates_of(run: Path) -> list[dict[str, Any]]:
    return [line for line in read_jsonl(run / "metrics.jsonl") if "loss" in line]


def events_of(run: Path, name: str) -> list[dict[str, Any]]:
    return [line for line in read_jsonl(run / "events.jsonl") if line["event"] == name]


def end_of(run: Path) -> tuple[list[float], str]:
    """All losses and the digest of the result."""
    losses = [line["loss"] for line in updates_of(run)]
    return losses, digest_of_tensors(load_file(run / "adapter" / "adapter_model.safetensors"))


def test_stop_names_the_rows_and_the_next_step(
    tmp_path: Path, tiny_llama_folder: Path, rows: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = rows_of_updates()
    rows.bad = {clean[BAD_UPDATE - 1][3]}
    config = config_of(tmp_path / "run", tiny_llama_folder)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    capsys.readouterr()
    assert command(["train", str(path), "--json"]) == 4
    told = capsys.readouterr()
    assert "loss spike" in json.loads(told.out)["stopped_by"]
    assert "on_loss_spike: skip" in told.err
    assert "rows.jsonl:" in told.err
    run = Path(config["output_dir"])
    (stopped,) = events_of(run, "stopped")
    assert stopped["step"] == BAD_UPDATE
    assert stopped["details"]["row_ids"] == list(clean[BAD_UPDATE - 1])
    assert all("rows.jsonl:" in one for one in stopped["details"]["rows"])
    assert [one["step"] for one in updates_of(run)] == list(range(1, BAD_UPDATE))
    assert command(["generate", str(run), "hi"]) == 2
    told_later = capsys.readouterr().err
    assert "it was stopped (loss spike" in told_later and "Train anew" in told_later
    assert not (run / "adapter").exists()
    assert "loss spike" in (run / "report.html").read_text(encoding="utf-8")


def test_skip_goes_past_the_rows_and_makes_all_updates(
    tmp_path: Path, tiny_llama_folder: Path, rows: Rows
) -> None:
    clean = rows_of_updates()
    rows.bad = {clean[BAD_UPDATE - 1][3]}
    config = config_of(tmp_path / "run", tiny_llama_folder, on_loss_spike="skip")
    summary = trimtab.train(config)
    assert (summary.num_steps, summary.num_skipped_updates) == (NUM_STEPS, 1)
    assert rows.passes == clean[: NUM_STEPS + 1]
    run = Path(summary.run)
    updates = updates_of(run)
    assert [one["step"] for one in updates] == list(range(1, NUM_STEPS + 1))
    rates = [one["learning_rate"] for one in updates]
    falls = [before - after for before, after in pairwise(rates[3:])]
    assert falls == pytest.approx([falls[0]] * len(falls))
    epochs = [one["epoch"] for one in updates]
    share = epochs[1] - epochs[0]
    assert epochs[BAD_UPDATE - 1] - epochs[BAD_UPDATE - 2] == pytest.approx(2 * share)
    (spike,) = events_of(run, "loss spike")
    assert spike["details"]["answer"] == "skip"
    assert spike["details"]["row_ids"] == list(clean[BAD_UPDATE - 1])


@pytest.mark.parametrize(("save_steps", "back_to"), [(6, 18), (100, 0)])
def test_rewind_goes_back_and_past_all_rows_up_to_the_spike(
    tmp_path: Path, tiny_llama_folder: Path, rows: Rows, save_steps: int, back_to: int
) -> None:
    clean = rows_of_updates()
    rows.bad = {clean[BAD_UPDATE - 1][3]}
    config = config_of(
        tmp_path / "run",
        tiny_llama_folder,
        on_loss_spike="rewind",
        save_steps=save_steps,
        max_steps=BAD_UPDATE + 2,
    )
    summary = trimtab.train(config)
    num_passed_over = BAD_UPDATE - back_to
    assert (summary.num_rewinds, summary.num_skipped_updates) == (1, num_passed_over)
    run = Path(summary.run)
    assert [one["step"] for one in updates_of(run)] == list(range(1, BAD_UPDATE + 3))
    assert rows.passes[:BAD_UPDATE] == clean[:BAD_UPDATE]
    after = rows.passes[BAD_UPDATE:]
    assert len(after) == BAD_UPDATE + 2 - back_to
    assert after == clean[BAD_UPDATE : BAD_UPDATE + len(after)]
    (spike,) = events_of(run, "loss spike")
    assert spike["details"]["back_to_update"] == back_to
    assert spike["details"]["num_updates_passed_over"] == num_passed_over


@pytest.mark.parametrize(
    ("policy", "breaking"),
    [
        ("skip", {"event": "loss spike"}),
        ("skip", {"update": BAD_UPDATE + 1}),
        ("rewind", {"update": BAD_UPDATE - 1}),
        ("rewind", {"event": "loss spike"}),
    ],
    ids=str,
)
def test_a_run_that_was_interrupted_around_a_spike_ends_as_one_that_was_not(
    tmp_path: Path, tiny_llama_folder: Path, rows: Rows, policy: str, breaking: dict[str, Any]
) -> None:
    clean = rows_of_updates()
    rows.bad = {clean[BAD_UPDATE - 1][3]}
    changes = {"on_loss_spike": policy, "max_steps": NUM_STEPS - 1}
    whole = trimtab.train(config_of(tmp_path / "whole", tiny_llama_folder, **changes))
    cut = config_of(tmp_path / "cut", tiny_llama_folder, **changes)
    with pytest.raises(trimtab.Interrupted):
        trimtab.train(cut, observer=Breaking(**breaking))
    summary = trimtab.resume(cut["output_dir"])
    assert end_of(Path(summary.run)) == end_of(Path(whole.run))
    assert summary.num_rewinds == whole.num_rewinds


def test_a_loss_that_stays_high_stops_under_skip(
    tmp_path: Path, tiny_llama_folder: Path, rows: Rows
) -> None:
    clean = rows_of_updates()
    rows.bad = {row for update in clean[BAD_UPDATE - 1 :] for row in update}
    config = config_of(tmp_path / "run", tiny_llama_folder, on_loss_spike="skip")
    with pytest.raises(trimtab.GuardStop, match=r"diverged.*in a row.*smaller learning_rate"):
        trimtab.train(config)


def test_a_run_goes_back_so_often_and_no_oftener(
    tmp_path: Path, tiny_llama_folder: Path, rows: Rows
) -> None:
    clean = rows_of_updates()
    rows.bad = {row for update in clean[BAD_UPDATE - 1 :] for row in update}
    config = config_of(tmp_path / "run", tiny_llama_folder, on_loss_spike="rewind")
    with pytest.raises(trimtab.GuardStop, match=f"went back {MAX_REWINDS} times") as stop:
        trimtab.train(config)
    assert "this is none" in str(stop.value)
    run = Path(config["output_dir"])
    assert len(events_of(run, "loss spike")) == MAX_REWINDS
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["num_rewinds"] == MAX_REWINDS
