"""A run killed at each change that it makes on the disk, one process each, ends as if it were not.

The run keeps a best, replaces it, retires a checkpoint and hands over, so that every kind of write
is among its points. Of points at which the folder is the same, byte for byte, one stands for all:
`benchmarks/faults.py points` takes each.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.dying_runs import DyingRuns
from support.ends import wrong_after_kill
from support.runs import tiny_config
from support.trees import tree_digest

NUM_SHARDS = 2


@pytest.mark.parametrize("shard", range(NUM_SHARDS))
def test_killed_at_each_point_then_resumed_ends_bitwise_as_without(
    tmp_path: Path, tiny_llama_folder: Path, runs: DyingRuns, shard: int
) -> None:
    runs.plan(
        tiny_config(
            tmp_path,
            tiny_llama_folder,
            chat_template="none",
            max_steps=2,
            save_steps=1,
            save_total_limit=1,
            eval_steps=1,
            eval_dataset=0.1,
            lora_dropout=0.1,
            global_batch_size=4,
            per_device_train_batch_size=2,
            report_samples=0,
            learning_rate=3e-3,
        )
    )
    run, whole = tmp_path / "run", tmp_path / "whole"
    ended = runs.train(run, notes_states=True)
    assert (ended.status, ended.error) == (0, "")
    run.rename(whole)
    for kind in ("in safetensors", "in write", "fsync", "rename", "replace", "unlink", "rmdir"):
        assert any(label.startswith(kind) for label in ended.labels)
    first_points = {state: point for point, state in reversed([*enumerate(ended.states, 1)])}
    for state, point in list(first_points.items())[shard::NUM_SHARDS]:
        where = f"point {point}: {ended.labels[point - 1]}"
        assert runs.train(run, kill_at=point).status == -9, where
        assert tree_digest(run) == state, where
        assert wrong_after_kill(runs, run, whole) == [], where
        shutil.rmtree(run, ignore_errors=True)
