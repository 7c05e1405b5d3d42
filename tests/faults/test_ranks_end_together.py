"""Two ranks of real runs: killed, asked to stop, out of memory; and what a user sees of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.dying_ranks import DyingRanks, dying_ranks, timed_whole
from support.ends import differences
from support.runs import read_jsonl, tiny_config

CONFIG: dict[str, Any] = {
    "chat_template": "none",
    "lora_dropout": 0.1,
    "global_batch_size": 4,
    "per_device_train_batch_size": 1,
    "learning_rate": 3e-3,
    "max_steps": 30,
    "eval_steps": 4,
    "save_steps": 3,
    "report_samples": 0,
}
LONGEST_S = 30.0
WAITED_S = 300.0
"""For what has no limit of its own: a machine may have much else to do."""


@pytest.fixture(scope="module")
def runs() -> Iterator[DyingRanks]:
    with dying_ranks() as runs:
        yield runs


@pytest.mark.parametrize("parallelism", ["replicate", "shard"])
@pytest.mark.parametrize("victim", [0, 1])
def test_one_killed_ends_both_and_both_resume_to_the_same(
    runs: DyingRanks, tmp_path: Path, tiny_llama_folder: Path, parallelism: str, victim: int
) -> None:
    runs.plan(tiny_config(tmp_path, tiny_llama_folder, **CONFIG, parallelism=parallelism))
    whole, _ = timed_whole(runs, tmp_path)
    run = tmp_path / "run"
    # No launcher tells the other: it learns of it from the exchange itself.
    ended = runs.run("train", run, victim=victim, at_update=4, forwards=False)
    other = 1 - victim
    assert ended.statuses[victim] == -signal.SIGKILL
    assert ended.ended_s < LONGEST_S
    assert ended.statuses[other] == (75 if other == 0 else 0)
    assert f"trimtab resume {run} --num-processes 2" in ended.errors[other]
    assert set(runs.run("resume", run).statuses) == {0}
    assert differences(run, whole) == []


def test_a_stop_of_one_saves_at_the_same_update_and_one_rank_goes_on(
    runs: DyingRanks, tmp_path: Path, tiny_llama_folder: Path
) -> None:
    runs.plan(tiny_config(tmp_path, tiny_llama_folder, **CONFIG))
    run = tmp_path / "run"
    ended = runs.run("train", run, victim=1, at_update=4, signal=int(signal.SIGTERM))
    assert ended.statuses == (75, 0)
    assert ended.errors[0] == ended.errors[1]
    assert "saved after update" in ended.errors[0]
    assert runs.run("resume", run, num_ranks=1).statuses == (0,)
    resumed = [each for each in read_jsonl(run / "events.jsonl") if each["event"] == "resumed"]
    assert [each["details"]["num_ranks"] for each in resumed] == [1]
    steps = [each["step"] for each in read_jsonl(run / "metrics.jsonl") if "loss" in each]
    assert steps == list(range(1, 31))


def test_a_number_of_ranks_that_does_not_divide_is_refused(
    runs: DyingRanks, tmp_path: Path, tiny_llama_folder: Path
) -> None:
    runs.plan(tiny_config(tmp_path, tiny_llama_folder, **CONFIG))
    run = tmp_path / "run"
    runs.run("train", run, victim=0, at_update=1, signal=int(signal.SIGTERM))
    ended = runs.run("resume", run, num_ranks=3)
    assert ended.statuses[0] == 2
    assert "Start 2 or 4 processes" in ended.errors[0]


@pytest.mark.parametrize("training", [True, False], ids=["training", "planning"])
def test_ranks_end_after_a_launcher_that_is_killed(
    tmp_path: Path, tiny_llama_folder: Path, training: bool
) -> None:
    file, run = tmp_path / "config.json", tmp_path / "run"
    config = {**tiny_config(tmp_path, tiny_llama_folder, **CONFIG), "max_steps": 100_000}
    file.write_text(json.dumps({**config, "save_steps": 100_000, "eval_dataset": "none"}))
    command = [sys.executable, "-m", "trimtab", "train", str(file), "--num-processes", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        launcher, metrics = psutil.Process(process.pid), run / "metrics.jsonl"
        while process.poll() is None and len(launcher.children()) < 2:
            time.sleep(0.05)
        while training and process.poll() is None and not metrics.exists():
            time.sleep(0.05)
        below = launcher.children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(below, timeout=LONGEST_S)
        for each in alive:
            each.kill()
        assert not alive
        _, told = process.communicate(timeout=WAITED_S)
    assert "Traceback" not in told
    if training:
        summary = json.loads((run / "summary.json").read_text())
        assert summary["status"] == "interrupted"
        assert f"saved after update {summary['num_steps']}" in told
        assert f"trimtab resume {run} --num-processes 2" in told
    else:
        assert not run.exists()


@pytest.mark.parametrize("parallelism", ["replicate", "shard"])
def test_what_is_changed_and_allowed_is_in_force_on_every_rank(
    runs: DyingRanks, tmp_path: Path, tiny_llama_folder: Path, parallelism: str
) -> None:
    runs.plan(tiny_config(tmp_path, tiny_llama_folder, **CONFIG, parallelism=parallelism))
    run = tmp_path / "run"
    ended = runs.run("train", run, victim=0, at_update=4, signal=int(signal.SIGTERM))
    assert ended.statuses == (75, 0)
    changed = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    plan = json.loads((run / "plan.json").read_text())
    for decision in plan["decisions"]:
        decision["value"] = changed.get(decision["name"], decision["value"])
    (run / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, "-m", "trimtab", "resume", str(run), "--num-processes", "2"]
    done = subprocess.run(
        [*command, "--allow-changed"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=WAITED_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    newest = max((run / "checkpoints").glob("step-*"))
    recipe = json.loads((newest / "state.json").read_text())["recipe"]
    assert {name: recipe[name] for name in changed} == changed
    assert recipe["num_ranks"] == 2


def test_the_command_starts_processes_and_tells_once(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    """SIGTERM to the launcher: 75, saved. Then torchrun goes on with it to the end."""
    file, run = tmp_path / "config.json", tmp_path / "run"
    config = {**tiny_config(tmp_path, tiny_llama_folder, **CONFIG), "max_steps": 400}
    file.write_text(json.dumps({**config, "save_steps": 400, "eval_dataset": "none"}))
    # Where one has to run beside other processes, threads would only wait for each other.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "trimtab"]
    train = [*command, "train", str(file), "--num-processes", "2"]
    with subprocess.Popen(
        train, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        metrics = run / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=WAITED_S)
    assert process.returncode == 75, told
    assert told.count("saved after update") == 1
    assert "Traceback" not in told and "elastic" not in told
    assert told.count("held-out") <= 1
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "trimtab", "resume", str(run)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAITED_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("training loss") == 1
    assert json.loads((run / "summary.json").read_text())["num_steps"] == 400
