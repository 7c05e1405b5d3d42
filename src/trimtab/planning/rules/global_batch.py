"""How many examples make one weight update, and whether the three sizes agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab.errors import ConfigError
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Alternative
from trimtab.planning.fact import Facts
from trimtab.planning.rules.duration import asked_epochs, num_updates
from trimtab.planning.rules.ruling import counted, where_set

AUTO_SIZE = 16
MIN_AUTO_SIZE = 4
MIN_UPDATES = 150
"""Fewer updates than this are too few to learn from, whatever the gradient's noise."""


@dataclass(frozen=True, slots=True)
class GivenSizes:
    """What the user set of the three; None where `auto`. `ranks` devices train together."""

    micro: int | None
    accumulation: int | None
    total: int | None
    ranks: int


@dataclass(frozen=True, slots=True)
class Target:
    """The size that `auto` aims at, before it is made divisible."""

    size: int
    because: str
    alternatives: tuple[Alternative, ...] = ()


def given_sizes(resolved: ResolvedConfig, num_ranks: int) -> GivenSizes:
    """Raises ConfigError where the three disagree or the global batch does not divide."""
    config = resolved.config
    given = GivenSizes(
        micro=_number(config.per_device_train_batch_size),
        accumulation=_number(config.gradient_accumulation_steps),
        total=_number(config.global_batch_size),
        ranks=num_ranks,
    )
    if given.total is None:
        return given
    product = (given.micro or 1) * (given.accumulation or 1) * num_ranks
    factors = _factors(given)
    if given.micro is not None and given.accumulation is not None:
        if product != given.total:
            raise ConfigError(
                f"global_batch_size {given.total:,} is not {factors} = {product:,}.",
                where=where_set(resolved, "global_batch_size"),
                hint="Leave one of the three out, or change one.",
            )
    elif given.total % product:
        below, above = given.total // product * product, -(-given.total // product) * product
        nearest = " or ".join(f"{size:,}" for size in (below, above) if size)
        raise ConfigError(
            f"global_batch_size {given.total:,} is not divisible by {factors}.",
            where=where_set(resolved, "global_batch_size"),
            hint=f"The nearest global batch that is: {nearest}.",
        )
    return given


def global_batch_target(resolved: ResolvedConfig, facts: Facts) -> Target:
    """16, halved while the run would have fewer than 150 updates, never under 4.

    Never more than there are rows: an update has each row once.
    """
    num_rows = facts.integer("rows.num_rows")
    least = MIN_AUTO_SIZE if resolved.config.max_steps == -1 else AUTO_SIZE
    if num_rows < least:
        return Target(num_rows, f"all {counted(num_rows, 'row')}, fewer than {least}")
    if resolved.config.max_steps != -1:
        return Target(AUTO_SIZE, f"max_steps fixes the updates, so {AUTO_SIZE} needs no lowering")
    epochs = asked_epochs(resolved)

    def updates(size: int) -> int:
        return num_updates(epochs, num_rows, size)

    size = AUTO_SIZE
    while updates(size) < MIN_UPDATES and size > MIN_AUTO_SIZE:
        size //= 2
    because = f"{epochs:g} epochs of {num_rows:,} rows give {counted(updates(size), 'update')}"
    if updates(size) < MIN_UPDATES:
        because += f", under {MIN_UPDATES}; {MIN_AUTO_SIZE} is the least that auto takes"
    elif size < AUTO_SIZE:
        because += f", at least {MIN_UPDATES}; {2 * size} would give {updates(2 * size):,}"
    else:
        because += f", at least {MIN_UPDATES}"
    alternatives = tuple(
        Alternative(other, f"would give {counted(updates(other), 'update')}")
        for other in (2 * size, size // 2)
        if MIN_AUTO_SIZE <= other <= AUTO_SIZE
    )
    return Target(size, because, alternatives)


def nearest_multiple(target: int, step: int) -> int:
    """The multiple of `step` nearest to `target`, at least one `step`."""
    return max(1, math.floor(target / step + 0.5)) * step


def _number(size: int | str) -> int | None:
    return size if isinstance(size, int) else None


def _factors(given: GivenSizes) -> str:
    parts = []
    if given.micro is not None:
        parts.append(f"per_device_train_batch_size {given.micro:,}")
    if given.accumulation is not None:
        parts.append(f"gradient_accumulation_steps {given.accumulation:,}")
    if given.ranks > 1 or not parts:
        parts.append(counted(given.ranks, "device"))
    return " × ".join(parts)
