"""Micro-batch, accumulation and checkpointing: what fits, and fills the global batch exactly.

Sizes count rows of a batch: examples, or packed rows where `packing` is on.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.errors import DoesNotFit
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.hyperparameters.units import format_bytes
from trimtab.planning.decision import Alternative, Decision
from trimtab.planning.fact import Facts
from trimtab.planning.rules.global_batch import (
    GivenSizes,
    Target,
    given_sizes,
    global_batch_target,
    nearest_multiple,
)
from trimtab.planning.rules.memory import Checkpointing, MemoryModel
from trimtab.planning.rules.ruling import Ruling, decision, percent, where_set

MIN_BUSY_TOKENS = {"cpu": 1, "cuda": 512}
"""Tokens of a micro-batch below which a device waits for weights to be read rather than multiplies:
a weight of two bytes is used twice a token, and cards do 200–300 operations in the time of a byte.
"""
LADDER: tuple[Checkpointing, ...] = ("off", 2, "full")
_LIMITS = "memory is arithmetic, for a micro-batch of the longest rows; no size was timed"


@dataclass(frozen=True, slots=True)
class MemoryRoom:
    """`limit_bytes` is what the plan keeps under; `ceiling_bytes` what cannot be had at all."""

    limit_bytes: int
    ceiling_bytes: int


@dataclass(frozen=True, slots=True)
class Sizes:
    micro: int
    accumulation: int
    total: int
    checkpointing: Checkpointing


def is_friendly(size: int) -> bool:
    """Sizes that kernels are tuned for: 8·k, else 4, 2 and 1."""
    return size in {1, 2, 4} or size % 8 == 0


def nearest_friendly(size: int) -> tuple[int, int]:
    """The friendly sizes below and above one that is not."""
    if size < 8:
        return (2, 4) if size == 3 else (4, 8)
    return size // 8 * 8, -(-size // 8) * 8


def decide_batch(
    resolved: ResolvedConfig,
    facts: Facts,
    *,
    memory: MemoryModel,
    room: MemoryRoom,
    num_ranks: int,
) -> Ruling:
    """The batch's four sizes and `activation_checkpointing`.

    Raises ConfigError where given sizes disagree and DoesNotFit where nothing fits.
    """
    given = given_sizes(resolved, num_ranks)
    target = global_batch_target(resolved, facts)
    asked = resolved.config.activation_checkpointing
    ladder = LADDER if asked == "auto" else (asked,)
    candidates = micro_batch_candidates(given, target.size)
    is_fixed = given.micro is not None or (
        given.total is not None and given.accumulation is not None
    )
    tokens_per_row = facts.number("rows.num_tokens") / facts.number("rows.num_rows")
    least = MIN_BUSY_TOKENS[facts.text("device.kind")] / tokens_per_row
    micro, checkpointing = _largest_that_fits(candidates, least, ladder, memory, room)
    if memory.peak_bytes(micro, checkpointing) > room.limit_bytes and (
        not is_fixed or memory.peak_bytes(micro, checkpointing) > room.ceiling_bytes
    ):
        raise _does_not_fit(resolved, given, micro, checkpointing, memory, room)
    sizes = _solved(given, target, micro, checkpointing)
    return Ruling(
        (
            _micro(resolved, given, sizes, candidates, memory, room),
            decision(
                resolved,
                "per_device_eval_batch_size",
                micro
                if resolved.config.per_device_eval_batch_size == "auto"
                else resolved.config.per_device_eval_batch_size,
                "rule",
                "the training micro-batch; the loss does not depend on it"
                if resolved.config.per_device_eval_batch_size == "auto"
                else "the loss does not depend on it",
            ),
            decision(
                resolved,
                "gradient_accumulation_steps",
                sizes.accumulation,
                "rule",
                _equation(sizes, num_ranks),
            ),
            _total(resolved, given, target, sizes, num_ranks),
            _checkpointing(resolved, sizes, memory, room),
        ),
        warnings=_warnings(sizes, memory, room),
        not_measured=(
            "the speed of each micro-batch size (the largest that fits is taken)",
            "the gradient's noise scale (what a larger global batch would be worth)",
        ),
    )


def micro_batch_candidates(given: GivenSizes, target_size: int) -> tuple[int, ...]:
    """Micro-batches that complete what is given, the largest first; one where it is settled."""
    if given.micro is not None:
        return (given.micro,)
    if given.total is not None and given.accumulation is not None:
        return (given.total // (given.accumulation * given.ranks),)
    if given.accumulation is not None:
        most = max(1, target_size // (given.accumulation * given.ranks))
        return tuple(size for size in range(most, 0, -1) if is_friendly(size))
    total = given.total or nearest_multiple(target_size, given.ranks)
    per_rank = total // given.ranks
    return tuple(
        size for size in range(per_rank, 0, -1) if is_friendly(size) and per_rank % size == 0
    )


def _largest_that_fits(
    candidates: tuple[int, ...],
    least_busy_size: float,
    ladder: tuple[Checkpointing, ...],
    memory: MemoryModel,
    room: MemoryRoom,
) -> tuple[int, Checkpointing]:
    """Recomputing less comes before a larger micro-batch, as long as the device is kept busy.

    Where nothing fits, the pair that needs least.
    """
    busy = tuple(size for size in candidates if size >= least_busy_size) or candidates[:1]
    for sizes in (busy, candidates):
        for checkpointing in ladder:
            for size in sizes:
                if memory.peak_bytes(size, checkpointing) <= room.limit_bytes:
                    return size, checkpointing
    return candidates[-1], ladder[-1]


def _solved(given: GivenSizes, target: Target, micro: int, checkpointing: Checkpointing) -> Sizes:
    step = micro * given.ranks
    if given.total is not None:
        total = given.total
    elif given.accumulation is not None:
        total = step * given.accumulation
    else:
        total = nearest_multiple(target.size, step)
    return Sizes(micro, total // step, total, checkpointing)


def _equation(sizes: Sizes, num_ranks: int) -> str:
    ranks = f" × {num_ranks} devices" if num_ranks > 1 else ""
    return (
        f"{sizes.total:,} rows an update = {sizes.micro:,} × {sizes.accumulation:,} "
        f"micro-batches{ranks}"
    )


def _micro(
    resolved: ResolvedConfig,
    given: GivenSizes,
    sizes: Sizes,
    candidates: tuple[int, ...],
    memory: MemoryModel,
    room: MemoryRoom,
) -> Decision:
    peak = memory.peak_bytes(sizes.micro, sizes.checkpointing)
    fit = f"predicted peak {format_bytes(peak)}, limit {format_bytes(room.limit_bytes)}"
    if given.micro is not None:
        because = fit
    elif given.total is not None and given.accumulation is not None:
        because = f"{_equation(sizes, given.ranks)}; {fit}"
    else:
        because = f"the largest friendly size that divides the global batch and fits: {fit}"
    larger = [size for size in candidates if size > sizes.micro]
    alternatives = tuple(
        Alternative(
            size,
            f"predicted peak {format_bytes(memory.peak_bytes(size, sizes.checkpointing))} "
            "is over the limit",
        )
        for size in larger[-1:]
    )
    return decision(
        resolved,
        "per_device_train_batch_size",
        sizes.micro,
        "rule",
        because,
        facts=("rows.length_max", "device.memory_available_bytes"),
        alternatives=alternatives,
        limits=_LIMITS,
    )


def _total(
    resolved: ResolvedConfig, given: GivenSizes, target: Target, sizes: Sizes, num_ranks: int
) -> Decision:
    if given.total is not None:
        because = _equation(sizes, num_ranks)
    elif given.micro is not None and given.accumulation is not None:
        because = f"both factors are set: {_equation(sizes, num_ranks)}"
    elif sizes.total != target.size:
        because = f"near {target.size} ({target.because}): {_equation(sizes, num_ranks)}"
    else:
        because = target.because
    is_aimed = given.total is None and sizes.total == target.size
    return decision(
        resolved,
        "global_batch_size",
        sizes.total,
        "rule",
        because,
        facts=("rows.num_rows",),
        alternatives=target.alternatives if is_aimed else (),
        limits="the gradient's noise scale is not measured",
    )


def _checkpointing(
    resolved: ResolvedConfig, sizes: Sizes, memory: MemoryModel, room: MemoryRoom
) -> Decision:
    peaks = {option: memory.peak_bytes(sizes.micro, option) for option in ("off", "full")}
    saved = peaks["off"] - peaks["full"]
    saving = (
        f"{format_bytes(saved)} ({percent(saved, peaks['off'])}) less for about a third more "
        "operations"
    )
    chosen = memory.peak_bytes(sizes.micro, sizes.checkpointing)
    figures = (
        f"predicted peak {format_bytes(chosen)} at micro-batch {sizes.micro:,}, "
        f"limit {format_bytes(room.limit_bytes)}"
    )
    alternatives: tuple[Alternative, ...]
    if sizes.checkpointing == "off":
        alternatives = (Alternative("full", f"would need {saving}"),)
    else:
        alternatives = (Alternative("off", f"would need {format_bytes(peaks['off'])}"),)
        figures += f"; off would need {format_bytes(peaks['off'])}"
    return decision(
        resolved,
        "activation_checkpointing",
        sizes.checkpointing,
        "rule",
        figures,
        facts=("device.memory_available_bytes",),
        alternatives=alternatives,
        limits="memory and time are arithmetic",
    )


def _warnings(sizes: Sizes, memory: MemoryModel, room: MemoryRoom) -> tuple[str, ...]:
    warnings = []
    if not is_friendly(sizes.micro):
        below, above = nearest_friendly(sizes.micro)
        needs = " and ".join(
            f"{size} (predicted peak {format_bytes(memory.peak_bytes(size, sizes.checkpointing))})"
            for size in (below, above)
        )
        warnings.append(
            f"A micro-batch of {sizes.micro} is no size that kernels are tuned for (8·k, 4, 2, "
            f"1). The nearest are {needs}."
        )
    peak = memory.peak_bytes(sizes.micro, sizes.checkpointing)
    if peak > room.limit_bytes:
        warnings.append(
            f"A micro-batch of {sizes.micro} may not fit: predicted peak {format_bytes(peak)}, "
            f"limit {format_bytes(room.limit_bytes)}."
        )
    return tuple(warnings)


def _does_not_fit(
    resolved: ResolvedConfig,
    given: GivenSizes,
    micro: int,
    checkpointing: Checkpointing,
    memory: MemoryModel,
    room: MemoryRoom,
) -> DoesNotFit:
    peak = memory.peak_bytes(micro, checkpointing)
    what = (
        f"a micro-batch of {micro:,} with activation_checkpointing {checkpointing} needs "
        f"{format_bytes(peak)} by prediction, the limit is {format_bytes(room.limit_bytes)}."
    )
    where = where_set(resolved, "per_device_train_batch_size" if given.micro else "memory_limit")
    fitting = [
        (size, option)
        for option in (checkpointing, *LADDER)
        for size in (*(s for s in range(micro, 0, -1) if is_friendly(s)), 1)
        if memory.peak_bytes(size, option) <= room.limit_bytes
    ]
    if fitting:
        size, option = fitting[0]
        hint = (
            f"per_device_train_batch_size {size} with activation_checkpointing {option} fits "
            f"({format_bytes(memory.peak_bytes(size, option))})."
        )
    elif memory.fixed_bytes > room.limit_bytes:
        hint = (
            f"Weights, gradients and optimizer state alone need "
            f"{format_bytes(memory.fixed_bytes)}: take a smaller model"
            f"{' or method lora' if resolved.config.method == 'full' else ''}."
        )
    else:
        share = (room.limit_bytes - memory.fixed_bytes) / (peak - memory.fixed_bytes)
        hint = f"Rows of {share:.0%} of that length fit: lower max_length."
    return DoesNotFit(what, where=where, hint=hint)
