"""Runs that came to nothing: nothing of them is counted, and they say why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.workflow.trial_runs import TrialRun


def run_without_losses(
    overrides: Mapping[str, Any], *, seed: int, num_steps: int, reason: str
) -> TrialRun:
    """As one that diverged, of `num_steps` weight updates that were asked for."""
    return TrialRun(
        overrides=overrides,
        seed=seed,
        num_steps=num_steps,
        row_ids=(),
        row_losses=(),
        row_num_trainable_tokens=(),
        eval_loss=None,
        num_tokens=0,
        num_eval_tokens=0,
        seconds=0.0,
        total_seconds=0.0,
        peak_memory_bytes=0,
        diverged=reason,
    )
