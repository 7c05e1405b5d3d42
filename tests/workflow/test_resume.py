from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.children import child_environment
from support.halting import signalled_where_halted, wait_until_halted
from support.runs import read_jsonl, tiny_config

import trimtab
from trimtab.engine.observer import Silent
from trimtab.runs import manifest
from trimtab.runs.records import UpdateRecord
from trimtab.workflow import carrying_out, provenance, session


def config_file(folder: Path, model: Path, **changes: object) -> Path:
    folder.mkdir()
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tiny_config(folder, model, **changes)))
    return path


def losses(run: Path) -> list[tuple[int, float]]:
    lines = read_jsonl(run / "metrics.jsonl")
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def digest(run: Path) -> str:
    return hashlib.sha256((run / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


class StopAfterTwo(Silent):
    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        if record.step == 2:
            raise ZeroDivisionError


def crashed(folder: Path, model: Path, **changes: Any) -> Path:
    """A run of four updates that ended after the second, with a checkpoint of the first."""
    values = {"max_steps": 4, "save_steps": 1, "report_samples": 0, "eval_dataset": "none"}
    config = tiny_config(folder, model, **{**values, **changes})
    with pytest.raises(ZeroDivisionError):
        trimtab.train(config, observer=StopAfterTwo())
    return Path(config["output_dir"])


HALTING = """
import sys
from pathlib import Path

config, after = sys.argv[1:]
from support.halting import halt
from trimtab.cli.app import run
from trimtab.cli.progress import ConsoleObserver

told = ConsoleObserver.updated


def updated(observer, record, num_steps):
    told(observer, record, num_steps)
    if record.step == int(after):
        halt(Path(config).parent)


ConsoleObserver.updated = updated
sys.exit(run(["train", config]))
"""


def interrupted(
    config: Path, number: signal.Signals, *, after: int, loses_stderr: bool = False
) -> tuple[int, str]:
    """Train in a process of its own and signal it after an update; its exit status and stderr."""
    environment = child_environment()
    # It would hide what a lost stderr does to the exit status.
    environment.pop("PYTHONUNBUFFERED", None)
    process = subprocess.Popen(
        [sys.executable, "-c", HALTING, str(config), str(after)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    if loses_stderr:
        wait_until_halted(process, config.parent)
        assert process.stderr is not None
        process.stderr.close()
    _, errors = signalled_where_halted(process, number, config.parent)
    return process.returncode, errors


@pytest.mark.parametrize(
    ("number", "eval_dataset"),
    [(signal.SIGINT, "auto"), (signal.SIGTERM, "none"), (signal.SIGKILL, "auto")],
    ids=["SIGINT", "SIGTERM and nothing held out", "SIGKILL"],
)
def test_a_signal_then_resume_ends_bitwise_as_without(
    tmp_path: Path, tiny_llama_folder: Path, number: signal.Signals, eval_dataset: str
) -> None:
    changes = {
        "eval_dataset": eval_dataset,
        "max_steps": 60,
        "save_steps": 20,
        "lora_dropout": 0.1,
        "packing": True,
        "max_length": 64,
        "global_batch_size": 4,
        "per_device_train_batch_size": 2,
        "report_samples": 0,
    }
    whole = config_file(tmp_path / "whole", tiny_llama_folder, **changes)
    trimtab.train(whole)
    cut = config_file(tmp_path / "cut", tiny_llama_folder, **changes)
    status, errors = interrupted(cut, number, after=45)
    if number == signal.SIGKILL:
        assert status == -signal.SIGKILL
    else:
        assert status == 75, errors
        assert "trimtab resume" in errors
    run = cut.parent / "run"
    assert not (run / "adapter").exists()
    summary = trimtab.resume(run)
    assert summary.num_steps == 60
    assert losses(run) == losses(whole.parent / "run")
    assert digest(run) == digest(whole.parent / "run")


def test_a_run_that_is_stopped_is_saved_where_nobody_reads_its_stderr(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    changes = {"eval_dataset": "none", "report_samples": 0}
    config = config_file(tmp_path / "cut", tiny_llama_folder, **changes)
    status, _ = interrupted(config, signal.SIGINT, after=3, loses_stderr=True)
    assert status == 75
    run = config.parent / "run"
    assert [each.name for each in (run / "checkpoints").iterdir()] == ["step-000003"]
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"


def test_a_finished_run_is_not_resumed(tmp_path: Path, tiny_llama_folder: Path) -> None:
    run = trimtab.train(tiny_config(tmp_path, tiny_llama_folder, max_steps=1)).run
    with pytest.raises(trimtab.ConfigError, match="finished"):
        trimtab.resume(run)


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl"])
def test_a_damaged_line_can_be_removed_and_the_run_goes_on(
    tmp_path: Path, tiny_llama_folder: Path, name: str
) -> None:
    run = crashed(tmp_path, tiny_llama_folder)
    ledger = run / name
    first, *others = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join([b"\xff" + first, *others]))
    with pytest.raises(trimtab.ConfigError, match=rf"{name}:1.*Remove the line"):
        trimtab.resume(run)
    ledger.write_bytes(b"".join(others))
    assert trimtab.resume(run).status == "done"
    steps = [step for step, _ in losses(run)]
    assert steps == ([1, 2, 3, 4] if name == "events.jsonl" else [2, 3, 4])


def test_a_checkpoint_that_cannot_be_read_is_told_and_stays(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = crashed(tmp_path, tiny_llama_folder, max_steps=3)
    before = (run / "events.jsonl").read_bytes()

    def failing(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as disk:
        disk.setattr(manifest, "_sha256", failing)
        with pytest.raises(trimtab.ConfigError, match=r"step-000001/.*Input/output error.*resume"):
            trimtab.resume(run)
    assert (run / "events.jsonl").read_bytes() == before
    assert trimtab.resume(run).num_steps == 3


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(trimtab.ConfigError):
        trimtab.resume(tmp_path)


def test_what_loading_freed_is_given_back_before_the_updates(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = crashed(tmp_path, tiny_llama_folder)
    told: list[str] = []

    class Telling(Silent):
        def updated(self, record: UpdateRecord, num_steps: int) -> None:
            told.append(f"update {record.step}")

    def tell(what: str) -> Any:
        give_back = session.give_back_freed_memory
        return lambda device: (told.append(what), give_back(device))

    monkeypatch.setattr(carrying_out, "give_back_freed_memory", tell("loaded"))
    monkeypatch.setattr(session, "give_back_freed_memory", tell("rows"))
    trimtab.resume(run, observer=Telling())
    assert told == ["rows", "loaded", "update 2", "update 3", "update 4"]


def with_another_row(rows: Path) -> None:
    rows.write_text(rows.read_text().replace("lazy dog", "busy dog", 1))


def test_rows_are_checked_where_a_run_was_killed_before_it_had_begun(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    run = crashed(tmp_path, tiny_llama_folder, save_steps=100)
    (run / "data.json").unlink()
    rows = tmp_path / "rows.jsonl"
    planned = rows.read_text()
    with_another_row(rows)
    with pytest.raises(trimtab.DataError, match="not those that were planned"):
        trimtab.resume(run)
    rows.write_text(planned)
    assert trimtab.resume(run).status == "done"


def test_other_rows_that_are_allowed_before_a_run_has_begun_are_recorded(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    run = crashed(tmp_path, tiny_llama_folder, save_steps=100)
    (run / "data.json").unlink()
    with_another_row(tmp_path / "rows.jsonl")
    assert trimtab.resume(run, allow_changed=True).status == "done"
    events = read_jsonl(run / "events.jsonl")
    (change,) = [each["details"] for each in events if each["event"] == "change accepted"]
    assert change["what"] == provenance.OTHER_ROWS


def test_changes_are_found_where_a_checkpoint_is_there_and_no_data_json(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    run = crashed(tmp_path, tiny_llama_folder)
    (run / "data.json").unlink()
    with_another_row(tmp_path / "rows.jsonl")
    with pytest.raises(trimtab.DataError, match="not those that were planned"):
        trimtab.resume(run)
