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
    ("cosine", {"num_cycles": 1.5}),
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("cosine_with_restarts", {}),
    ("cosine_with_restarts", {"num_cycles": 3}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
    ("cosine_with_min_lr", {"min_lr": 1e-4, "num_cycles": 1.0}),
    ("polynomial", {}),
    ("polynomial", {"power": 2.0, "lr_end": 1e-6}),
    ("inverse_sqrt", {}),
    ("inverse_sqrt", {"timescale": 20}),
    ("warmup_stable_decay", {"num_decay_steps": 6}),
    ("warmup_stable_decay", {"num_decay_steps": 9, "decay_type": "linear", "min_lr_ratio": 0.2}),
    ("warmup_stable_decay", {"num_decay_steps": 9, "decay_type": "1-sqrt"}),
    ("warmup_stable_decay", {"num_decay_steps": 9, "warmup_type": "cosine"}),
    ("warmup_stable_decay", {"num_decay_steps": 9, "warmup_type": "1-sqrt", "num_cycles": 1.0}),
)
NUM_UPDATES = 40
RATE = 3e-3


def rates_of(name: str, arguments: dict[str, Any], warmup_steps: int) -> tuple[float, ...]:
    settings = tiny_settings(
        lr_scheduler_type=name,
        lr_scheduler_kwargs=arguments,
        warmup_steps=warmup_steps,
        num_train_steps=NUM_UPDATES,
        learning_rate=RATE,
    )
    return make_schedule(settings).rates


@pytest.mark.parametrize("warmup_steps", [0, 1, 7])
@pytest.mark.parametrize(("name", "arguments"), SCHEDULES)
def test_rates_are_transformers_own(
    name: str, arguments: dict[str, Any], warmup_steps: int
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=RATE)
    scheduler = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=warmup_steps,
        num_training_steps=NUM_UPDATES,
        scheduler_specific_kwargs=dict(arguments),
    )
    expected = []
    for _ in range(NUM_UPDATES):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates_of(name, arguments, warmup_steps) == pytest.approx(expected, rel=1e-9)


def test_schedules_differ_from_one_another() -> None:
    curves = {rates_of(name, arguments, warmup_steps=5) for name, arguments in SCHEDULES}
    # One restart of a cosine is the cosine.
    assert len(curves) == len(SCHEDULES) - 1


def test_one_update_has_one_rate() -> None:
    settings = tiny_settings(num_train_steps=1, warmup_steps=0, learning_rate=RATE)
    assert make_schedule(settings).rates == (RATE,)
