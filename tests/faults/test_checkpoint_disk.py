"""A disk that fills up, or that gives back something else, costs no checkpoint that was good."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.faults import no_file_over
from support.runs import read_jsonl, tiny_config

import trimtab
from trimtab.engine import checkpoint
from trimtab.engine.observer import Silent
from trimtab.runs import atomic, ledger
from trimtab.runs.checkpoints import newest_verified
from trimtab.runs.records import EventRecord, UpdateRecord

BIG_RUN = {"method": "full", "save_steps": 1, "eval_dataset": "none", "report_samples": 0}


class AfterFirstSave(Silent):
    """Does something once the first checkpoint is told of."""

    def __init__(self, do: Any) -> None:
        self._do = do
        self._is_done = False

    def happened(self, event: EventRecord) -> None:
        if event.event == "checkpoint saved" and not self._is_done:
            self._is_done = True
            self._do()


def test_a_save_that_the_system_refuses_leaves_the_last_good_one_and_says_how_to_go_on(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, **BIG_RUN)
    run = Path(config["output_dir"])
    with no_file_over(20_000) as limit, pytest.raises(trimtab.ConfigError) as caught:
        trimtab.train(config, observer=AfterFirstSave(limit))
    assert "File too large" in str(caught.value) and "trimtab resume" in str(caught.value)
    assert "weights.safetensors" in str(caught.value)
    good, refused = newest_verified(run / "checkpoints")
    assert good is not None and good.name == "step-000001" and refused == ()
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000001"]
    assert trimtab.resume(run).status == "done"


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_result_that_the_system_refuses_is_handed_over_by_the_next_resume(
    tmp_path: Path, tiny_llama_folder: Path, method: str
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, **{**BIG_RUN, "method": method})
    run = Path(config["output_dir"])

    class AfterTheLastSave(Silent):
        def happened(self, event: EventRecord) -> None:
            if event.event == "checkpoint saved" and event.step == config["max_steps"]:
                limit()

    with no_file_over(8_000) as limit, pytest.raises(trimtab.ConfigError) as caught:
        trimtab.train(config, observer=AfterTheLastSave())
    assert "File too large" in str(caught.value) and "trimtab resume" in str(caught.value)
    assert not list(run.glob("*/*.safetensors"))
    assert trimtab.resume(run).status == "done"


def test_a_full_disk_of_a_megabyte_leaves_the_last_good_one(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mounting, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if mounted.returncode != 0:
        pytest.skip("a disk of a megabyte cannot be mounted here, which needs root")
    try:
        monkeypatch.setattr("trimtab.workflow.carrying_out.check_room_on_disk", lambda *_: None)
        run = disk / "run"
        changes = {**BIG_RUN, "output_dir": str(run), "method": "lora"}
        config = tiny_config(tmp_path, tiny_llama_folder, **changes)

        def fill() -> None:
            with (disk / "other").open("wb", buffering=0) as stream:
                while stream.write(b"x" * 4096) == 4096:
                    pass

        def filled() -> None:
            with pytest.raises(OSError, match="No space left"):
                fill()

        with pytest.raises(trimtab.ConfigError, match=r"No space left.*trimtab resume"):
            trimtab.train(config, observer=AfterFirstSave(filled))
        good, refused = newest_verified(run / "checkpoints")
        assert good is not None and good.name == "step-000001" and refused == ()
        (disk / "other").unlink()
        assert trimtab.resume(run).status == "done"
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def refusing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The disk has no room for the file of this name any more."""
    original = atomic.write_bytes

    def write_bytes(path: Path, content: bytes) -> None:
        if path.name == name:
            # A write of an open file fails without telling of which.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(path, content)

    monkeypatch.setattr(atomic, "write_bytes", write_bytes)
    monkeypatch.setattr(ledger, "write_bytes", write_bytes)


def test_a_disk_that_is_full_as_a_run_begins_or_goes_on_is_told_as_such(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Aborting(Silent):
        def updated(self, record: UpdateRecord, num_steps: int) -> None:
            if record.step == 2:
                raise KeyboardInterrupt

    config = tiny_config(tmp_path, tiny_llama_folder, **BIG_RUN)
    run = Path(config["output_dir"])
    for name in ("config.yaml", "data.json"):
        with monkeypatch.context() as full:
            refusing(full, name)
            with pytest.raises(trimtab.ConfigError, match=r"No space left.*train anew"):
                trimtab.train(config)
        assert not run.exists()
    with monkeypatch.context() as full:
        refusing(full, "summary.json")
        with pytest.raises(trimtab.ConfigError, match=r"No space left.*trimtab resume"):
            trimtab.train(config)
    with pytest.raises(trimtab.Interrupted):
        trimtab.resume(run, observer=Aborting())
    for name in ("metrics.jsonl", "summary.json"):
        with monkeypatch.context() as full:
            refusing(full, name)
            with pytest.raises(trimtab.ConfigError, match=r"No space left.*trimtab resume"):
                trimtab.resume(run)
    assert trimtab.resume(run).status == "done"


def test_room_is_checked_before_anything_is_trained(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 1000

    monkeypatch.setattr("trimtab.runs.folder.shutil.disk_usage", lambda path: Full)
    config = tiny_config(tmp_path, tiny_llama_folder, **BIG_RUN)
    with pytest.raises(trimtab.ConfigError, match="of disk for its checkpoints and result"):
        trimtab.train(config)
    assert not Path(config["output_dir"]).exists()


def test_what_reads_otherwise_right_after_it_was_written_stops_and_removes_nothing(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = checkpoint.save_checkpoint

    def lying(folder: Path, *arguments: Any) -> None:
        original(folder, *arguments)
        if folder.name == "step-000002":
            path = folder / checkpoint.WEIGHTS
            path.write_bytes(path.read_bytes()[:-1] + b"\x77")

    monkeypatch.setattr(checkpoint, "save_checkpoint", lying)
    config = tiny_config(tmp_path, tiny_llama_folder, **BIG_RUN, save_total_limit=1)
    with pytest.raises(trimtab.ConfigError, match="reads otherwise"):
        trimtab.train(config)
    run = Path(config["output_dir"])
    good, refused = newest_verified(run / "checkpoints")
    assert good is not None and good.name == "step-000001"
    assert [one.path.name for one in refused] == ["step-000002"]
    monkeypatch.undo()
    assert trimtab.resume(run).status == "done"
    refusals = [line for line in read_jsonl(run / "events.jsonl") if "refused" in line["event"]]
    assert refusals[0]["details"]["problems"] == [
        "weights.safetensors has another content than was written"
    ]
