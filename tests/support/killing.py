"""Runs killed at random moments, again and again, until they come to their end."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.dying_runs import DyingRuns
from support.ends import differences, lost

KILLED = -9
KILL_AGAIN = 0.5
"""The chance that a resumed run is killed too."""

VARIETY: dict[str, dict[str, Any]] = {
    "lora, packed, dropout, accumulated, best kept": {
        "packing": True,
        "max_length": 64,
        "lora_dropout": 0.1,
        "global_batch_size": 4,
        "per_device_train_batch_size": 2,
        "eval_steps": 5,
        "save_steps": 4,
    },
    "full, accumulated, best kept": {
        "method": "full",
        "global_batch_size": 8,
        "per_device_train_batch_size": 2,
        "eval_steps": 3,
        "save_steps": 5,
        "save_total_limit": 1,
    },
    "full, padded, nothing held out, a save at each update": {
        "method": "full",
        "padding": "longest",
        "global_batch_size": 4,
        "per_device_train_batch_size": 4,
        "eval_dataset": "none",
        "save_steps": 1,
    },
    "lora, fp16 with its loss scale": {
        "precision": "fp16",
        "lora_dropout": 0.1,
        "global_batch_size": 4,
        "per_device_train_batch_size": 2,
        "eval_steps": 10,
        "save_steps": 3,
    },
    "full, muon, packed": {
        "method": "full",
        "optim": "muon",
        "packing": True,
        "max_length": 64,
        "global_batch_size": 2,
        "per_device_train_batch_size": 1,
        "eval_steps": 7,
        "save_steps": 6,
    },
}
"""What the runs that are killed differ in."""


@dataclass(frozen=True)
class Story:
    """How often a run was killed before it ended, and what was wrong with its end."""

    num_kills: int
    wrong: tuple[str, ...]


def timed_whole(runs: DyingRuns, folder: Path) -> tuple[Path, float]:
    """A run that is not interrupted, and its seconds."""
    started = time.perf_counter()
    # A time past its end: it must run as those that are killed do.
    ended = runs.train(folder / "whole", kill_after_s=600)
    assert (ended.status, ended.error) == (0, "")
    return folder / "whole", time.perf_counter() - started


def killed_until_done(
    runs: DyingRuns, run: Path, whole: Path, *, whole_s: float, choice: random.Random
) -> Story:
    """Kill a run at random moments, resume it, and compare its end; its folder is removed."""
    wrong: list[str] = []
    num_kills = 0
    ended = runs.train(run, kill_after_s=choice.uniform(0, whole_s))
    while ended.status == KILLED:
        num_kills += 1
        missing = lost(run)
        wrong += [] if missing is None else [missing]
        is_begun = (run / "plan.json").exists()
        again_s = choice.uniform(0, whole_s) if choice.random() < KILL_AGAIN else 600.0
        if not is_begun:
            shutil.rmtree(run, ignore_errors=True)
        ended = (runs.resume if is_begun else runs.train)(run, kill_after_s=again_s)
    if ended.status != 0 and "the run is finished" not in ended.error:
        wrong.append(f"not resumed: {ended.error}")
    else:
        wrong += differences(run, whole)
    shutil.rmtree(run)
    return Story(num_kills, tuple(wrong))
