"""The same update on more or fewer ranks than it was planned for."""

from __future__ import annotations

import pytest
from support.settings import tiny_settings

from trimtab.errors import ConfigError
from trimtab.planning.recipe import Recipe
from trimtab.planning.rules.rank_share import shared_by


def recipe(size: int, steps: int, num_ranks: int) -> Recipe:
    return Recipe.of(
        tiny_settings(
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            num_ranks=num_ranks,
            precision="bf16",
            activation_checkpointing=2,
        )
    )


def shape(found: Recipe) -> tuple[int, int, int]:
    return (
        found.per_device_train_batch_size,
        found.gradient_accumulation_steps,
        found.num_ranks,
    )


@pytest.mark.parametrize(
    ("planned", "num_ranks", "expected"),
    [
        ((2, 4, 1), 2, (2, 2, 2)),
        ((2, 2, 2), 1, (2, 4, 1)),
        ((4, 1, 2), 4, (2, 1, 4)),
        ((4, 1, 4), 16, (1, 1, 16)),
        ((4, 3, 1), 2, (3, 2, 2)),
        ((8, 1, 3), 1, (8, 3, 1)),
        ((8, 1, 3), 2, (6, 2, 2)),
        ((1, 5, 2), 5, (1, 2, 5)),
    ],
)
def test_the_global_batch_stays_and_micro_batches_do_not_grow(
    planned: tuple[int, int, int], num_ranks: int, expected: tuple[int, int, int]
) -> None:
    before = recipe(*planned)
    found = shared_by(before, num_ranks)
    assert shape(found) == expected
    size, steps, ranks = shape(found)
    assert size * steps * ranks == planned[0] * planned[1] * planned[2]
    assert size <= planned[0]
    assert set(found.changed_from(before)) <= {
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "num_ranks",
    }


def test_as_many_ranks_as_planned_change_nothing() -> None:
    before = recipe(3, 2, 4)
    assert shared_by(before, 4) is before


@pytest.mark.parametrize(
    ("planned", "num_ranks", "nearest"),
    [
        ((2, 4, 1), 3, "Start 2 or 4 processes"),
        ((2, 2, 2), 5, "Start 4 or 8 processes"),
        ((1, 7, 1), 2, "Start 1 or 7 processes"),
        ((2, 4, 1), 16, "Start 8 processes"),
        ((1, 1, 1), 2, "Start 1 process"),
    ],
)
def test_ranks_that_cannot_share_it_evenly_are_refused(
    planned: tuple[int, int, int], num_ranks: int, nearest: str
) -> None:
    total = planned[0] * planned[1] * planned[2]
    with pytest.raises(ConfigError, match=f"{nearest}\\.") as refused:
        shared_by(recipe(*planned), num_ranks)
    assert f"global_batch_size {total}" in str(refused.value)
    assert f"by {num_ranks} processes" in str(refused.value)
