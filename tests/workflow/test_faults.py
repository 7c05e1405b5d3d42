"""What a run does when something goes wrong beside the arithmetic: nothing is lost or untrue."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.runs import read_jsonl, tiny_config, write_rows

import trimtab
from trimtab.cli.app import run as command
from trimtab.engine import loop
from trimtab.engine.evaluation import Evaluation
from trimtab.engine.observer import Silent
from trimtab.runs.records import UpdateRecord
from trimtab.workflow.planning import plan_run, resolve_config


class Interrupting(Silent):
    """Sends SIGINT after an update, or in an activity."""

    def __init__(self, *, update: int | None = None, activity: str | None = None) -> None:
        self._update = update
        self._activity = activity

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        if record.step == self._update:
            signal.raise_signal(signal.SIGINT)

    def activity(self, name: str, total: int | None = None) -> None:
        if name == self._activity:
            raise KeyboardInterrupt


def summary_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "summary.json").read_text(encoding="utf-8")))


def steps_of(run: Path) -> list[int]:
    return [line["step"] for line in read_jsonl(run / "metrics.jsonl") if "loss" in line]


def stopped_at(update: int, config: dict[str, Any]) -> Path:
    with pytest.raises(trimtab.Interrupted) as stop:
        trimtab.train(config, observer=Interrupting(update=update))
    assert stop.value.exit_code == 75
    run = Path(config["output_dir"])
    assert summary_of(run)["status"] == "interrupted"
    return run


@pytest.mark.parametrize("activity", ["writing the result", "asking the tuned model"])
def test_a_run_aborted_while_it_hands_over_can_be_finished(
    tmp_path: Path, tiny_llama_folder: Path, activity: str
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, eval_steps=1, learning_rate=3e-2)
    with pytest.raises(trimtab.Interrupted):
        trimtab.train(config, observer=Interrupting(activity=activity))
    run = Path(config["output_dir"])
    assert summary_of(run)["status"] == "interrupted"
    summary = trimtab.resume(run)
    assert summary.status == "done"
    assert steps_of(run) == [1, 2, 3, 4, 5, 6]
    assert (run / "adapter").is_dir()


def test_a_plan_with_a_warmup_ratio_trains_and_resumes(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, warmup_ratio=0.5)
    assert trimtab.train(plan_run(resolve_config(config), Silent()).plan).num_steps == 6
    run = stopped_at(3, {**config, "output_dir": str(tmp_path / "again")})
    assert trimtab.resume(run).num_steps == 6


def test_a_configuration_object_is_a_configuration(tmp_path: Path, tiny_llama_folder: Path) -> None:
    config = trimtab.TrainingConfig(**tiny_config(tmp_path, tiny_llama_folder))
    plan = trimtab.plan(config, quick=True)
    assert plan.decision("max_steps").origin == "user"
    assert plan.decision("learning_rate").origin != "user"


def test_a_run_resumes_from_another_folder(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "rows.jsonl")
    monkeypatch.chdir(tmp_path)
    config = tiny_config(tmp_path, tiny_llama_folder, dataset="rows.jsonl", output_dir="run")
    stopped_at(3, config)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert trimtab.resume(tmp_path / "run").num_steps == 6


def test_changed_rows_are_noticed(tmp_path: Path, tiny_llama_folder: Path) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder)
    run = stopped_at(3, config)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text().replace("lazy dog", "busy dog", 1))
    with pytest.raises(trimtab.DataError, match="not those that were planned"):
        trimtab.resume(run)


def test_the_user_s_own_empty_folder_is_kept_and_left_empty(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    link = tmp_path / "link"
    link.symlink_to(mine)
    for output in (mine, link):
        config = tiny_config(tmp_path, tiny_llama_folder, output_dir=str(output), lora_dropout=0.1)
        monkey = pytest.MonkeyPatch()
        monkey.setattr(
            "trimtab.workflow.carrying_out.check_room_on_disk",
            lambda *_: (_ for _ in ()).throw(trimtab.ConfigError("no room")),
        )
        with pytest.raises(trimtab.ConfigError, match="no room"):
            trimtab.train(config)
        monkey.undo()
        assert mine.is_dir()
        assert list(mine.iterdir()) == []


def test_a_refused_train_touches_nothing_of_the_other_run(
    tmp_path: Path, tiny_llama_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, max_steps=1)
    run = Path(trimtab.train(config).run)
    (run / "report.html").write_text("MINE")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    assert command(["train", str(path)]) == 2
    assert (run / "report.html").read_text() == "MINE"
    assert "never overwritten" in capsys.readouterr().err


def test_a_stopped_run_prints_its_json_and_its_exit_code(
    tmp_path: Path, tiny_llama_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(
        tmp_path, tiny_llama_folder, method="full", learning_rate=1000.0, max_steps=40
    )
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    assert command(["train", str(path), "--json"]) == 4
    result = json.loads(capsys.readouterr().out)
    assert result["stopped_by"]


def test_a_damaged_newer_checkpoint_is_refused_and_goes(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    config = tiny_config(tmp_path, tiny_llama_folder, save_steps=2)
    run = stopped_at(5, config)
    damaged = run / "checkpoints" / "step-000005" / "weights.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    said: list[str] = []

    class Listening(Silent):
        def noted(self, text: str) -> None:
            said.append(text)

    assert trimtab.resume(run, observer=Listening()).num_steps == 6
    assert any("step-000005" in text for text in said)
    assert steps_of(run) == [1, 2, 3, 4, 5, 6]


def test_no_whole_checkpoint_is_an_error(tmp_path: Path, tiny_llama_folder: Path) -> None:
    run = stopped_at(3, tiny_config(tmp_path, tiny_llama_folder))
    for manifest in run.rglob("manifest.json"):
        manifest.unlink()
    with pytest.raises(trimtab.ConfigError, match="no checkpoint of the run is whole"):
        trimtab.resume(run)


def test_damaged_best_weights_are_not_handed_over(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([5.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: Evaluation(next(losses), 1, 1, 0.1))
    config = tiny_config(tmp_path, tiny_llama_folder, eval_steps=2)
    original = loop.checkpoint.save_best

    def damaging(checkpoints: Path, *arguments: Any) -> None:
        original(checkpoints, *arguments)
        (kept,) = checkpoints.glob("best-*")
        os.truncate(kept / "weights.safetensors", 10)

    monkeypatch.setattr(loop.checkpoint, "save_best", damaging)
    summary = trimtab.train(config)
    assert summary.best_step is None
    assert summary.eval_loss == 3.0
    events = [line["event"] for line in read_jsonl(Path(summary.run) / "events.jsonl")]
    assert "best weights refused" in events


def test_a_disk_that_fills_up_is_told_with_the_way_on(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr(loop.checkpoint, "save_checkpoint", full)
    with pytest.raises(trimtab.ConfigError, match=r"No space left.*trimtab resume"):
        trimtab.train(tiny_config(tmp_path, tiny_llama_folder))


def test_an_error_of_the_system_that_is_not_the_disk_s_is_not_told_as_one(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    class Failing(Silent):
        def updated(self, record: UpdateRecord, num_steps: int) -> None:
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    config = tiny_config(tmp_path, tiny_llama_folder, eval_dataset="none", report_samples=0)
    with pytest.raises(OSError, match="reset"):
        trimtab.train(config, observer=Failing())
    assert summary_of(tmp_path / "run")["status"] == "failed"


def test_a_damaged_plan_is_told(tmp_path: Path, tiny_llama_folder: Path) -> None:
    run = stopped_at(3, tiny_config(tmp_path, tiny_llama_folder))
    (run / "plan.json").write_text('{"format": 1}')
    with pytest.raises(trimtab.ConfigError, match="plan cannot be read"):
        trimtab.resume(run)


def test_another_ctrl_c_once_the_run_is_saved_is_told_as_the_first(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trimtab.workflow.outcome.keep_run_facts", interrupted)
    write_rows(tmp_path / "rows.jsonl")
    run = stopped_at(3, tiny_config(tmp_path, tiny_llama_folder))
    assert steps_of(run) == [1, 2, 3]
    assert (run / "checkpoints" / "step-000003").is_dir()
