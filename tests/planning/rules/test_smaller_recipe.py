from __future__ import annotations

from typing import Any

import pytest
from support.settings import tiny_settings

from trimtab.planning.recipe import Recipe
from trimtab.planning.rules.smaller_recipe import smaller_eval_batch, smaller_recipe


def recipe(size: int, steps: int = 1, checkpointing: Any = "off") -> Recipe:
    return Recipe.of(
        tiny_settings(
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            activation_checkpointing=checkpointing,
        )
    )


@pytest.mark.parametrize(
    ("size", "steps", "smaller", "more_steps"),
    [(8, 1, 4, 2), (8, 4, 4, 8), (6, 1, 3, 2), (7, 1, 1, 7), (10, 3, 5, 6), (12, 5, 6, 10)],
)
def test_the_largest_divisor_up_to_half_keeps_the_global_batch(
    size: int, steps: int, smaller: int, more_steps: int
) -> None:
    found = smaller_recipe(recipe(size, steps), "it ran out", can_recompute=True)
    assert found is not None
    decision, changed = found
    assert decision.name == "per_device_train_batch_size"
    assert decision.value == changed.per_device_train_batch_size == smaller
    assert changed.gradient_accumulation_steps == more_steps
    assert decision.because.startswith("it ran out")
    assert changed.changed_from(recipe(size, steps)) == (
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
    )


@pytest.mark.parametrize("checkpointing", ["off", 2])
def test_one_example_recomputes_every_layer_and_then_nothing_is_left(checkpointing: Any) -> None:
    one = recipe(1, 8, checkpointing)
    found = smaller_recipe(one, "it ran out", can_recompute=True)
    assert found is not None
    assert found[0].value == found[1].activation_checkpointing == "full"
    assert smaller_recipe(found[1], "it ran out", can_recompute=True) is None
    assert smaller_recipe(one, "it ran out", can_recompute=False) is None


def test_the_held_out_pass_halves_to_one() -> None:
    sizes, current = [], recipe(8)
    while (found := smaller_eval_batch(current, "it ran out")) is not None:
        current = found[1]
        sizes.append(current.per_device_eval_batch_size)
    assert sizes == [2, 1]
