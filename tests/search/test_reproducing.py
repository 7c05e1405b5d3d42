from __future__ import annotations

from typing import Any

import pytest
from planning.facts import config
from support.settings import tiny_settings

from trimtab.search.reproducing import training_options

HELD = tiny_settings(
    global_batch_size=16,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=4,
    learning_rate=2e-4,
    num_train_steps=50,
    warmup_steps=5,
    lr_scheduler_kwargs={"num_decay_steps": 10},
)


def options(values: dict[str, Any], **asked: Any) -> dict[str, Any]:
    return training_options(config(**asked), values, HELD)


def test_the_rate_that_the_runs_held_goes_with_what_else_was_searched() -> None:
    assert options({"weight_decay": 0.1}) == {"weight_decay": 0.1, "learning_rate": 2e-4}
    assert options({"learning_rate": 3e-4}) == {"learning_rate": 3e-4}


def test_another_batch_takes_as_many_rows() -> None:
    moved = {"global_batch_size": 16}
    rate = {"learning_rate": 2e-4}
    assert options(moved) == moved | rate
    assert options(moved, num_train_epochs=3) == moved | rate
    assert options(moved, max_steps=100) == moved | rate | {"max_steps": 50}
    assert options({"weight_decay": 0.1}, max_steps=100).keys() == {"weight_decay", *rate}


@pytest.mark.parametrize(
    ("asked", "added"),
    [
        ({"warmup_steps": 10}, {"warmup_steps": 5}),
        ({"warmup_steps": 0.1}, {}),
        ({"warmup_ratio": 0.1}, {}),
        ({"per_device_train_batch_size": 4}, {}),
        ({"gradient_accumulation_steps": 2}, {"gradient_accumulation_steps": 4}),
        ({"lr_scheduler_kwargs": {"num_decay_steps": 20}}, "lr_scheduler_kwargs"),
    ],
)
def test_what_was_set_in_updates_or_beside_the_batch_is_that_of_the_runs(
    asked: dict[str, Any], added: Any
) -> None:
    if added == "lr_scheduler_kwargs":
        asked = asked | {"lr_scheduler_type": "warmup_stable_decay"}
        added = {"lr_scheduler_kwargs": {"num_decay_steps": 10}}
    moved = {"global_batch_size": 16}
    assert options(moved, **asked) == moved | {"learning_rate": 2e-4} | added
    with_ratio = options({**moved, "warmup_ratio": 0.2}, warmup_steps=10)
    assert "warmup_steps" not in with_ratio
