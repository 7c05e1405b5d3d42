"""How many examples make one weight update, and whether the three sizes agree."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from trimtab.errors import ConfigError
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Alternative, Origin
from trimtab.planning.fact import Facts
from trimtab.planning.rules.duration import asked_epochs, num_updates
from trimtab.planning.rules.ruling import counted, where_set

AUTO_SIZE = 16
MIN_AUTO_SIZE = 4
MIN_UPDATES = 150
"""Fewer updates than this are too few to learn from, whatever the gradient's noise."""
NOISE_FACTS = (
    "noise.scale_examples",
    "noise.low_examples",
    "noise.high_examples",
    "noise.num_updates",
)


@dataclass(frozen=True, slots=True)
class GivenSizes:
    """What the user set of the three; None where `auto`. `ranks` devices train together."""

    micro: int | None
    accumulation: int | None
    total: int | None
    ranks: int


@dataclass(frozen=True, slots=True)
class Target:
    """The size that `auto` aims at, before it is made divisible, with what its Decision says."""

    size: int
    because: str
    alternatives: tuple[Alternative, ...] = ()
    origin: Origin = "rule"
    facts: tuple[str, ...] = ("rows.num_rows",)
    limits: str = "the gradient's noise scale is not measured"


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
        hint = f"The nearest global batch that is: {nearest}."
        if num_ranks > 1:
            hint += f" Or start {nearest_divisors(given.total, product // num_ranks, num_ranks)}."
        raise ConfigError(
            f"global_batch_size {given.total:,} is not divisible by {factors}.",
            where=where_set(resolved, "global_batch_size"),
            hint=hint,
        )
    return given


def global_batch_target(resolved: ResolvedConfig, facts: Facts) -> Target:
    """16, halved while the run would have fewer than 150 updates, never under 4.

    Where the gradient noise scale was measured, by an earlier run or before training, the size
    moves towards it, between half of that base and four times it, and never to fewer than 150
    updates. Never more than there are rows: an update has each row once.
    """
    num_rows = facts.integer("rows.num_rows")
    fixed = resolved.config.max_steps != -1
    least = AUTO_SIZE if fixed else MIN_AUTO_SIZE
    if num_rows < least:
        return Target(num_rows, f"all {counted(num_rows, 'row')}, fewer than {least}")
    if fixed:
        return _fixed_updates_target(facts)
    epochs = asked_epochs(resolved)

    def updates(size: int) -> int:
        return num_updates(epochs, num_rows, size)

    length = f"{epochs:g} epochs of {num_rows:,} rows"
    base = _base_target(length, num_rows, updates)
    if "noise.scale_examples" not in facts:
        return base
    return _towards_noise_scale(base, _noise_in_rows(facts), updates, min(num_rows, 4 * base.size))


def _fixed_updates_target(facts: Facts) -> Target:
    because = f"max_steps fixes the updates, so {AUTO_SIZE} needs no lowering"
    if "noise.scale_examples" not in facts:
        return Target(AUTO_SIZE, because)
    because += (
        f"; the gradient noise scale, {_noise_in_rows(facts).told}, does not move it: at a fixed "
        "number of updates another size would change how many tokens are seen"
    )
    return Target(AUTO_SIZE, because, facts=("rows.num_rows", *NOISE_FACTS))


def _base_target(length: str, num_rows: int, updates: Callable[[int], int]) -> Target:
    most = AUTO_SIZE
    while most > num_rows:
        most //= 2
    size = most
    while updates(size) < MIN_UPDATES and size > MIN_AUTO_SIZE:
        size //= 2
    because = f"{length} give {counted(updates(size), 'update')}"
    if updates(size) < MIN_UPDATES:
        because += f", under {MIN_UPDATES}; {MIN_AUTO_SIZE} is the least that auto takes"
    elif most < AUTO_SIZE and size == most:
        because += f", at least {MIN_UPDATES}; {2 * size} would be more than there are rows"
    elif size < AUTO_SIZE:
        because += f", at least {MIN_UPDATES}; {2 * size} would give {updates(2 * size):,}"
    else:
        because += f", at least {MIN_UPDATES}"
    alternatives = tuple(
        Alternative(other, f"would give {counted(updates(other), 'update')}")
        for other in (2 * size, size // 2)
        if MIN_AUTO_SIZE <= other <= most
    )
    return Target(size, because, alternatives)


@dataclass(frozen=True, slots=True)
class _Noise:
    """The noise scale in batch rows, with its 90% interval; `told` has it in words.

    when: where it was measured, as the limits of a decision say it.
    """

    scale: float
    low: float
    high: float
    told: str
    when: str


def _noise_in_rows(facts: Facts) -> _Noise:
    rows_per_example = facts.number("rows.num_rows") / facts.number("rows.num_examples")
    scale, low, high = (
        facts.number(f"noise.{end}_examples") * rows_per_example for end in ("scale", "low", "high")
    )
    is_probed = "noise.key" in facts
    source = "probed at the base weights" if is_probed else "of earlier training"
    when = "before anything was learnt" if is_probed else "at an earlier run's settings"
    told = (
        f"{scale:.3g} rows (90% interval {low:.3g} to {high:.3g}, from "
        f"{counted(facts.integer('noise.num_updates'), 'update')} {source})"
    )
    return _Noise(scale, low, high, told, when)


def _towards_noise_scale(
    base: Target, noise: _Noise, updates: Callable[[int], int], most: int
) -> Target:
    """The friendly size nearest to the near end of the interval; the base where that holds it.

    The near end, since both errors of a wrong step cost more than standing still: a larger batch
    wastes tokens, a smaller one has noisier updates and less parallel work.
    """
    if noise.low > base.size:
        sizes = [
            size
            for size in friendly_sizes(base.size, most)
            if size == base.size or updates(size) >= MIN_UPDATES
        ]
        goal = noise.low
    else:
        sizes = friendly_sizes(max(MIN_AUTO_SIZE, base.size // 2), base.size)
        goal = min(noise.high, base.size)
    size = min(sizes, key=lambda each: abs(each - goal))
    if size == base.size:
        holds = noise.low <= base.size <= noise.high
        why = "holds it" if holds else "gives no friendly size nearer within the bounds"
        because = f"{base.because}; the gradient noise scale, {noise.told}, {why}"
        return _measured(size, because, base.alternatives, noise.when)
    bounds = f"between half and four times {base.size}, at least {MIN_UPDATES} updates"
    direction = "low" if size > base.size else "high"
    because = (
        f"towards the {direction} end of the gradient noise scale, {noise.told}: {size} gives "
        f"{counted(updates(size), 'update')}; {bounds}"
    )
    neighbours = {base.size} | {other for other in (size // 2, 2 * size) if other <= most}
    alternatives = tuple(
        Alternative(other, f"would give {counted(updates(other), 'update')}")
        for other in sorted(neighbours - {size}, reverse=True)
        if other >= MIN_AUTO_SIZE
    )
    return _measured(size, because, alternatives, noise.when)


def _measured(size: int, because: str, alternatives: tuple[Alternative, ...], when: str) -> Target:
    return Target(
        size,
        because,
        alternatives,
        origin="measured",
        facts=("rows.num_rows", *NOISE_FACTS),
        limits=f"the noise scale is a hint: it grows while a model learns, was measured {when} "
        "(2018, arXiv 1812.06162), and its use to size batches is contested (2025, arXiv "
        "2505.23971)",
    )


def is_friendly(size: int) -> bool:
    """Sizes that kernels are tuned for: 8·k, else 4, 2 and 1."""
    return size in {1, 2, 4} or size % 8 == 0


def friendly_sizes(least: int, most: int) -> list[int]:
    """Those from `least` to `most`, both included."""
    return [size for size in range(least, most + 1) if is_friendly(size)]


def nearest_multiple(target: int, step: int) -> int:
    """The multiple of `step` nearest to `target`, at least one `step`."""
    return max(1, math.floor(target / step + 0.5)) * step


def nearest_divisors(total: int, per_rank: int, num_ranks: int) -> str:
    """`2 or 4 processes`: the numbers of ranks around one that divide the global batch."""
    fitting = [n for n in range(1, total + 1) if total % (n * per_rank) == 0]
    below = max((n for n in fitting if n < num_ranks), default=None)
    above = min((n for n in fitting if n > num_ranks), default=None)
    found = [n for n in (below, above) if n is not None]
    if not found:
        return "other sizes"
    told = " or ".join(f"{n:,}" for n in found)
    return f"{told} {'process' if found == [1] else 'processes'}"


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
