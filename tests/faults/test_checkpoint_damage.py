"""A damaged checkpoint is refused by file, the one before taken, and the end is the same.

`benchmarks/faults.py flips` does it 200 times.
"""

from __future__ import annotations

import itertools
import random
import shutil
from pathlib import Path

from support.damage import damages, interrupted, wrong_after_damage
from support.dying_runs import DyingRuns
from support.runs import tiny_config

from trimtab.runs.checkpoints import step_checkpoints

NUM_DAMAGES = 24
TO_ALL_EVERY = 6


def test_damage_is_refused_by_file_and_the_one_before_taken(
    tmp_path: Path, tiny_llama_folder: Path, runs: DyingRuns
) -> None:
    runs.plan(
        tiny_config(
            tmp_path,
            tiny_llama_folder,
            chat_template="none",
            max_steps=4,
            save_steps=1,
            eval_dataset="none",
            lora_dropout=0.1,
            global_batch_size=4,
            per_device_train_batch_size=2,
            report_samples=0,
        )
    )
    run, whole, before = (tmp_path / name for name in ("run", "whole", "before"))
    interrupted(runs, run)
    run.rename(before)
    assert runs.train(run).status == 0
    run.rename(whole)
    newest = step_checkpoints(before / "checkpoints")[-1]
    stream = damages(newest, random.Random(0))
    for number, damage in enumerate(itertools.islice(stream, 0, 3 * NUM_DAMAGES, 3), 1):
        shutil.copytree(before, run)
        to_all = number % TO_ALL_EVERY == 0
        assert wrong_after_damage(runs, run, whole, damage, to_all=to_all) == [], damage
        shutil.rmtree(run)
