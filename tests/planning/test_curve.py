"""The curve that a plan shows is the one that training follows."""

from __future__ import annotations

from typing import Any

import pytest
from support.settings import tiny_settings

from trimtab.engine.schedule import make_schedule
from trimtab.planning.curve import learning_rates

CURVES: tuple[tuple[str, dict[str, Any]], ...] = (
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


@pytest.mark.parametrize("warmup_steps", [0, 1, 7])
@pytest.mark.parametrize(("name", "arguments"), CURVES)
def test_is_the_schedule_that_training_follows(
    name: str, arguments: dict[str, Any], warmup_steps: int
) -> None:
    settings = tiny_settings(
        lr_scheduler_type=name,
        lr_scheduler_kwargs=arguments,
        warmup_steps=warmup_steps,
        num_train_steps=40,
        learning_rate=3e-3,
    )
    assert learning_rates(settings) == pytest.approx(make_schedule(settings).rates, rel=1e-9)


def test_one_update_has_one_rate() -> None:
    settings = tiny_settings(num_train_steps=1, warmup_steps=0, learning_rate=3e-3)
    assert learning_rates(settings) == (3e-3,)
