"""12 updates against 5, a new process and 7 more: every bit of the end is the same.

Compared are the result, the last checkpoint's weights, optimizer, random states and position, both
ledgers and the summary. The ways to be interrupted are a signal, two, SIGKILL and a crash.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
from support.dying_runs import Blow, DyingRuns, Way
from support.ends import differences
from support.killing import VARIETY
from support.runs import read_jsonl, tiny_config

NUM_STEPS = 12
STRUCK_AT = 5
STATUS_OF = {"SIGTERM": 75, "SIGINT": 75, "SIGINT twice": 75, "SIGKILL": -9, "crash": 1}
EVERY_WAY = next(iter(VARIETY))
RUNS: dict[str, dict[str, Any]] = {
    **VARIETY,
    "lora, schedule-free": {
        "optim": "adamw_schedule_free",
        "lr_scheduler_type": "constant",
        "global_batch_size": 4,
        "per_device_train_batch_size": 4,
        "eval_steps": 2,
        "save_steps": 4,
    },
    "lora, lion": {
        "optim": "lion",
        "global_batch_size": 4,
        "per_device_train_batch_size": 4,
        "eval_dataset": "none",
        "save_steps": 4,
    },
}


@pytest.mark.parametrize("name", list(RUNS))
def test_interrupted_and_resumed_ends_bitwise_as_without(
    tmp_path: Path, tiny_llama_folder: Path, runs: DyingRuns, name: str
) -> None:
    if "schedule" in name or "lion" in name:
        pytest.importorskip("pytorch_optimizer")
    options = {"max_steps": NUM_STEPS, "report_samples": 0, "chat_template": "none"}
    runs.plan(tiny_config(tmp_path, tiny_llama_folder, **{**options, **RUNS[name]}))
    run, whole = tmp_path / "run", tmp_path / "whole"
    ended = runs.train(run)
    assert (ended.status, ended.error) == (0, "")
    run.rename(whole)
    steps = [line["step"] for line in read_jsonl(whole / "metrics.jsonl") if "loss" in line]
    assert steps == list(range(1, NUM_STEPS + 1))
    ways: tuple[Way, ...] = get_args(Way) if name == EVERY_WAY else ("SIGTERM", "SIGKILL")
    for way in ways:
        struck = runs.train(run, blow=Blow(way, STRUCK_AT))
        assert struck.status == STATUS_OF[way], (way, struck.error)
        resumed = runs.resume(run)
        assert (resumed.status, resumed.error) == (0, ""), way
        # A stop saves once more than the run would have by itself.
        expected = [] if way in {"SIGKILL", "crash", "SIGINT twice"} else ["events.jsonl differs"]
        saves_anyway = STRUCK_AT % RUNS[name]["save_steps"] == 0
        assert differences(run, whole) == ([] if saves_anyway else expected), way
        shutil.rmtree(run)
