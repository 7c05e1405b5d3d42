"""What a run goes on in when its memory ran out: smaller pieces of the same update."""

from __future__ import annotations

from dataclasses import replace

from trimtab.planning.decision import Alternative, Decision
from trimtab.planning.recipe import Recipe

SAME_UPDATE = "the rows of an update, their order and the loss stay what they are"


def smaller_recipe(
    recipe: Recipe, ran_out: str, *, can_recompute: bool
) -> tuple[Decision, Recipe] | None:
    """Less memory for the same update: half the micro-batch, then every layer recomputed.

    The micro-batch becomes the largest divisor of the global batch that is at most half of it, so
    that all micro-batches but an epoch's last are of one size. None where one example already
    recomputes in every layer, or the architecture cannot recompute. `ran_out` says what did.
    """
    size = recipe.per_device_train_batch_size
    global_batch_size = size * recipe.gradient_accumulation_steps
    if size > 1:
        smaller = largest_divisor(global_batch_size, size // 2)
        steps = global_batch_size // smaller
        changed = replace(
            recipe, per_device_train_batch_size=smaller, gradient_accumulation_steps=steps
        )
        because = f"{ran_out}; an update is {steps:,} micro-batches from here on"
        return _decision("per_device_train_batch_size", smaller, size, because), changed
    if recipe.activation_checkpointing != "full" and can_recompute:
        changed = replace(recipe, activation_checkpointing="full")
        before = recipe.activation_checkpointing
        because = f"{ran_out}, and one example is the smallest micro-batch"
        return _decision("activation_checkpointing", "full", before, because), changed
    return None


def smaller_eval_batch(recipe: Recipe, ran_out: str) -> tuple[Decision, Recipe] | None:
    """Half the examples at once in the held-out pass; None where it is one already."""
    size = recipe.per_device_eval_batch_size
    if size == 1:
        return None
    changed = replace(recipe, per_device_eval_batch_size=size // 2)
    because = f"{ran_out}; the held-out loss does not depend on it"
    return _decision("per_device_eval_batch_size", size // 2, size, because), changed


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of `number` that is at most `at_most`, both positive."""
    return next(size for size in range(at_most, 0, -1) if number % size == 0)


def _decision(name: str, value: object, before: object, because: str) -> Decision:
    return Decision(
        name,
        value,
        "measured",
        because,
        alternatives=(Alternative(before, "it ran out of memory"),),
        limits=SAME_UPDATE,
    )
