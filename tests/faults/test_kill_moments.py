"""SIGKILL at random moments, again on resuming: the end is bitwise that of a run left alone.

`benchmarks/faults.py kills` does it 200 times.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.dying_runs import DyingRuns
from support.killing import VARIETY, killed_until_done, timed_whole
from support.runs import tiny_config

NUM_KILLS = 6


@pytest.mark.parametrize("name", list(VARIETY)[:2])
def test_killed_at_random_moments_ends_bitwise_as_without(
    tmp_path: Path, tiny_llama_folder: Path, runs: DyingRuns, name: str
) -> None:
    runs.plan(
        tiny_config(
            tmp_path,
            tiny_llama_folder,
            chat_template="none",
            max_steps=12,
            report_samples=0,
            **VARIETY[name],
        )
    )
    choice = random.Random(0)
    whole, whole_s = timed_whole(runs, tmp_path)
    num_kills = 0
    while num_kills < NUM_KILLS:
        story = killed_until_done(runs, tmp_path / "run", whole, whole_s=whole_s, choice=choice)
        assert story.wrong == ()
        num_kills += story.num_kills
