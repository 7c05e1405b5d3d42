"""What to say where nothing fits: the nearest settings that would, and what each would cost."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

from trimtab.errors import DoesNotFit
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.hyperparameters.units import format_bytes
from trimtab.planning.fact import Facts
from trimtab.planning.peak_memory import PeakMemory
from trimtab.planning.rules.choice import LADDER, MEMORY_MARGIN, Choice, MemoryRoom
from trimtab.planning.rules.global_batch import friendly_sizes
from trimtab.planning.rules.memory import Checkpointing
from trimtab.planning.rules.ruling import percent, where_set

MIN_LENGTH = 32


def does_not_fit(
    resolved: ResolvedConfig,
    facts: Facts,
    choice: Choice,
    tried: tuple[int, Checkpointing],
    *,
    can_change_size: bool,
) -> DoesNotFit:
    """The error for the pair of micro-batch and checkpointing that needs least and is too much."""
    memory, room = choice.memory, choice.room
    size, checkpointing = tried
    peak = memory.worst_case_bytes(size, checkpointing)
    pair = f"a micro-batch of {size:,} with activation_checkpointing {checkpointing}"
    how = "by measured updates" if memory.measured is not None else "by arithmetic"
    if choice.has_died(size, checkpointing):
        what = f"{pair} is no less than a trial that ran out of memory."
    else:
        what = (
            f"{pair} needs {format_bytes(peak)} {how}, and 5% more to be safe; the limit is "
            f"{format_bytes(room.limit_bytes)}."
        )
    is_micro_set = resolved.is_given("per_device_train_batch_size")
    where = where_set(resolved, "per_device_train_batch_size" if is_micro_set else "memory_limit")
    ways = [
        *_smaller_batches(choice, tried, can_change_size=can_change_size),
        *_without_padding(facts, memory, room, tried),
        *_shorter_rows(facts, memory, room, tried),
    ]
    raised = [] if choice.has_died(size, checkpointing) else _higher_limit(room, peak)
    if ways:
        hint = f"What would fit: {'; '.join([*ways, *raised])}."
        return DoesNotFit(what, where=where, hint=hint)
    lora = " or method lora" if resolved.config.method == "full" else ""
    otherwise = raised[0] if raised else "a device with more memory"
    fixed = format_bytes(min(memory.fixed_bytes, peak))
    return DoesNotFit(
        what,
        where=where,
        hint=f"The process, weights, gradients and optimizer state alone need {fixed}: take a "
        f"smaller model{lora}, or {otherwise}.",
    )


def _higher_limit(room: MemoryRoom, peak_bytes: int) -> list[str]:
    """The limit of all ranks on the memory, rounded up so that it is enough as it is told."""
    needed = math.ceil(peak_bytes * (1 + MEMORY_MARGIN))
    if needed > room.device_bytes:
        return []
    told = needed * room.num_sharing
    half_a_digit = 1024 ** ((told.bit_length() - 1) // 10) // 20
    return [f"memory_limit {format_bytes(told + half_a_digit)}"]


def _smaller_batches(
    choice: Choice, tried: tuple[int, Checkpointing], *, can_change_size: bool
) -> list[str]:
    """The largest micro-batch that fits at each checkpointing, with its memory and time."""
    tried_size, tried_checkpointing = tried
    given = choice.given
    sizes = [
        size
        for size in (friendly_sizes(1, tried_size) if can_change_size else [tried_size])
        if given.total is None or given.total % (size * given.ranks) == 0
    ]
    found = []
    for option in dict.fromkeys((tried_checkpointing, *LADDER)):
        for size in reversed(sizes):
            if (size, option) != tried and choice.fits(size, option):
                peak = choice.memory.worst_case_bytes(size, option)
                cost = format_bytes(peak) + _time_against(choice, tried, (size, option))
                found.append(
                    f"per_device_train_batch_size {size} with activation_checkpointing {option} "
                    f"({cost})"
                )
                break
    return found[:2]


def _time_against(
    choice: Choice, tried: tuple[int, Checkpointing], other: tuple[int, Checkpointing]
) -> str:
    if choice.speed is None:
        return ""
    rows = choice.memory.rows_in_update(tried[0])
    before = choice.speed.update_s(rows, *tried)
    after = choice.speed.update_s(rows, *other)
    return f", {after / before:.2f}× the time"


def _without_padding(
    facts: Facts, memory: PeakMemory, room: MemoryRoom, tried: tuple[int, Checkpointing]
) -> list[str]:
    """Rows that lie end to end, where they are padded and could."""
    if memory.layout.padding == "none" or facts.value("model.packing_refusal") is not None:
        return []
    layout = replace(memory.layout, padding="none", pad_to_multiple_of=None)
    peak = replace(memory, layout=layout).worst_case_bytes(*tried)
    return [f"padding none ({format_bytes(peak)})"] if room.holds(peak) else []


def _shorter_rows(
    facts: Facts, memory: PeakMemory, room: MemoryRoom, tried: tuple[int, Checkpointing]
) -> list[str]:
    """The largest power of two that rows could be cut to, and how many it would cut."""
    is_filled = memory.packing or memory.layout.padding == "max_length"
    longest = memory.layout.max_length if is_filled else facts.integer("rows.length_max")
    length = 1 << (longest - 1).bit_length() - 1 if longest > 1 else 0
    while length >= MIN_LENGTH:
        peak = _cut(memory, facts, length).worst_case_bytes(*tried)
        if room.holds(peak):
            share = share_longer(facts, length)
            return [f"max_length {length:,} ({format_bytes(peak)}, cuts {share} of the rows)"]
        length //= 2
    return []


def _cut(memory: PeakMemory, facts: Facts, length: int) -> PeakMemory:
    cut = {
        fact_id: [min(value, length) for value in cast(list[int], facts.value(fact_id))]
        for fact_id in ("rows.longest_lengths", "rows.most_scored")
        if fact_id in facts
    }
    scalars = {
        fact_id: min(facts.integer(fact_id), length)
        for fact_id in ("rows.length_max", "rows.trainable_length_max")
    }
    changed = [
        replace(fact, value=(cut | scalars)[fact.id])
        for fact in facts
        if fact.id in cut or fact.id in scalars
    ]
    layout = replace(memory.layout, max_length=min(memory.layout.max_length, length))
    return replace(memory, facts=facts.adding(changed), layout=layout)


def share_longer(facts: Facts, length: int) -> str:
    """The share of all rows that are longer than `length` tokens, as a percentage."""
    quantiles = cast(list[float], facts.value("data.length_quantiles"))
    return percent(sum(each > length for each in quantiles), len(quantiles))
