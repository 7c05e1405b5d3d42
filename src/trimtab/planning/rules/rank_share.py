"""The same update on another number of ranks than it was planned for."""

from __future__ import annotations

from dataclasses import replace

from trimtab.errors import ConfigError
from trimtab.planning.recipe import Recipe
from trimtab.planning.rules.global_batch import nearest_divisors
from trimtab.planning.rules.smaller_recipe import largest_divisor


def shared_by(recipe: Recipe, num_ranks: int) -> Recipe:
    """The recipe with each rank's part of the global batch; micro-batches grow in no case.

    Raises ConfigError where the global batch cannot be shared evenly.
    """
    if recipe.num_ranks == num_ranks:
        return recipe
    micro = recipe.per_device_train_batch_size
    total = micro * recipe.gradient_accumulation_steps * recipe.num_ranks
    if total % num_ranks:
        raise ConfigError(
            f"global_batch_size {total:,}, with which the run began, is not divisible by "
            f"{num_ranks:,} processes.",
            hint=f"Start {nearest_divisors(total, 1, num_ranks)}.",
        )
    per_rank = total // num_ranks
    size = largest_divisor(per_rank, min(micro, per_rank))
    return replace(
        recipe,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=per_rank // size,
        num_ranks=num_ranks,
    )
