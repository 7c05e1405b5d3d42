"""Runs of a search that were not made: rows' losses as runs have them, and a design for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from trimtab.search.design import Design, Space
from trimtab.search.halves import halves
from trimtab.workflow.trial_runs import TrialRun

NUM_ROWS = 64
ROWS = halves(NUM_ROWS, 0)
DESIGN = Design(
    spaces=(Space("learning_rate", 1e-5, 1e-3, 1e-4),),
    num_trials=6,
    num_steps=60,
    num_short_trials=4,
    short_num_steps=20,
    short_branches=False,
    run_num_steps=600,
    run_num_tokens=600_000,
    budget=1.0,
    sampler="local",
    seed=0,
)


def run_of(rate: float, loss: float, *, test_loss: float | None = None, **changes: Any) -> TrialRun:
    """Rows of 10 tokens whose difficulty all runs share; a little noise of each run's own."""
    hard = np.random.default_rng(0).lognormal(0, 1, NUM_ROWS)
    own = np.random.default_rng(int(1e9 * rate)).normal(0, 0.01, NUM_ROWS)
    per_token = loss + hard + own
    if test_loss is not None:
        for place in ROWS.test:
            per_token[place] += test_loss - loss
    run = TrialRun(
        overrides={"learning_rate": rate},
        seed=0,
        num_steps=60,
        row_ids=tuple(range(NUM_ROWS)),
        row_losses=tuple(10 * per_token),
        row_num_trainable_tokens=(10,) * NUM_ROWS,
        eval_loss=float(per_token.mean()),
        num_tokens=1000,
        num_eval_tokens=100,
        seconds=1.0,
        total_seconds=2.0,
        peak_memory_bytes=1,
    )
    return replace(run, **changes)


def diverged(rate: float) -> TrialRun:
    return run_of(rate, 0, row_losses=(), row_num_trainable_tokens=(), diverged="not finite")
