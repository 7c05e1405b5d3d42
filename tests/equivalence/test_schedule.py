"""Rates are those of `transformers.get_scheduler`, one for each weight update."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.settings import tiny_settings
from transformers import get_scheduler

from trimtab.engine.schedule import make_schedule

SCHEDULES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("linear", {}),
    ("cosine", {}),
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("cosine_with_restarts", {"num_cycles": 2}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
    ("polynomial", {"power": 2.0, "lr_end": 1e-6}),
    ("inverse_sqrt", {}),
    ("warmup_stable_decay", {"num_decay_steps": 6}),
)


@pytest.mark.parametrize(("name", "arguments"), SCHEDULES, ids=[name for name, _ in SCHEDULES])
def test_rates_are_transformers_own(name: str, arguments: dict[str, Any]) -> None:
    settings = tiny_settings(
        lr_scheduler_type=name,
        lr_scheduler_kwargs=arguments,
        warmup_steps=5,
        num_train_steps=40,
        learning_rate=3e-3,
    )
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=3e-3)
    scheduler = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=5,
        num_training_steps=40,
        scheduler_specific_kwargs=dict(arguments),
    )
    schedule = make_schedule(settings)
    for update in range(40):
        assert schedule.rate(update) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_schedules_differ_from_one_another() -> None:
    curves = {
        make_schedule(
            tiny_settings(
                lr_scheduler_type=name,
                lr_scheduler_kwargs=arguments,
                warmup_steps=5,
                num_train_steps=40,
            )
        ).rates
        for name, arguments in SCHEDULES
    }
    assert len(curves) == len(SCHEDULES)
