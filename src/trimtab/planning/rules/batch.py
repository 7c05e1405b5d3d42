"""Micro-batch, accumulation and checkpointing: what fits, is fast, and fills the global batch.

Sizes count rows of a batch: examples, or packed rows where `packing` is on.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.hyperparameters.units import format_bytes
from trimtab.planning.decision import Alternative, Decision
from trimtab.planning.device_sheets import is_elsewhere
from trimtab.planning.fact import Facts
from trimtab.planning.rules.choice import Choice, choose
from trimtab.planning.rules.global_batch import (
    GivenSizes,
    Target,
    is_friendly,
    nearest_multiple,
)
from trimtab.planning.rules.memory import Checkpointing
from trimtab.planning.rules.not_fitting import does_not_fit
from trimtab.planning.rules.ruling import Ruling, counted, decision, percent


@dataclass(frozen=True, slots=True)
class Sizes:
    micro: int
    accumulation: int
    total: int
    checkpointing: Checkpointing


def nearest_friendly(size: int) -> tuple[int, int]:
    """The friendly sizes below and above one that is not."""
    if size < 8:
        return (2, 4) if size == 3 else (4, 8)
    return size // 8 * 8, -(-size // 8) * 8


def decide_batch(
    resolved: ResolvedConfig,
    facts: Facts,
    *,
    choice: Choice,
    is_draft: bool = False,
) -> Ruling:
    """The batch's four sizes and `activation_checkpointing`.

    Raises DoesNotFit where nothing fits, unless the plan is a draft, whose memory is still to be
    measured.
    """
    given, target = choice.given, choice.target
    micro, checkpointing = choose(choice, facts)
    peak = choice.memory.worst_case_bytes(micro, checkpointing)
    if not is_draft and not choice.fits(micro, checkpointing):
        is_fixed = len(choice.candidates) == 1 and _is_settled(given)
        if not is_fixed or peak > choice.room.ceiling_bytes:
            raise does_not_fit(
                resolved,
                facts,
                choice,
                (micro, checkpointing),
                can_change_size=not (given.total and given.accumulation),
            )
    sizes = _solved(given, target, micro, checkpointing)
    return Ruling(
        (
            _micro(resolved, given, sizes, choice),
            _eval_size(resolved, micro),
            decision(
                resolved,
                "gradient_accumulation_steps",
                sizes.accumulation,
                "rule",
                _equation(sizes, given.ranks),
            ),
            _total(resolved, given, target, sizes),
            _checkpointing(resolved, sizes, choice),
        ),
        warnings=_warnings(sizes, choice),
        not_measured=_not_measured(choice, checkpointing),
    )


def rows_per_update(given: GivenSizes, target_size: int) -> int:
    """Rows of one device in a weight update, as far as they are known before the micro-batch is."""
    if given.total is not None:
        return given.total // given.ranks
    if given.micro is not None and given.accumulation is not None:
        return given.micro * given.accumulation
    if given.micro is not None:
        return nearest_multiple(target_size, given.micro * given.ranks) // given.ranks
    return max(1, nearest_multiple(target_size, given.ranks) // given.ranks)


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


def _is_settled(given: GivenSizes) -> bool:
    return given.micro is not None or (given.total is not None and given.accumulation is not None)


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


def _fit_text(sizes: Sizes, choice: Choice) -> str:
    peak = choice.memory.worst_case_bytes(sizes.micro, sizes.checkpointing)
    return (
        f"predicted peak {format_bytes(peak)} with the longest rows, limit "
        f"{format_bytes(choice.room.limit_bytes)}"
    )


def _micro(resolved: ResolvedConfig, given: GivenSizes, sizes: Sizes, choice: Choice) -> Decision:
    fit = _fit_text(sizes, choice)
    if given.micro is not None:
        because = fit
    elif given.total is not None and given.accumulation is not None:
        because = f"{_equation(sizes, given.ranks)}; {fit}"
    elif choice.is_by_speed:
        speed = choice.tokens_per_s(sizes.micro, sizes.checkpointing)
        predicted = "" if choice.is_timed else " predicted"
        because = (
            f"the smallest friendly size within 3% of the fastest that fits: {speed:,.0f} "
            f"tokens/s{predicted}; {fit}"
        )
    else:
        because = f"the largest friendly size that divides the global batch and fits: {fit}"
    return decision(
        resolved,
        "per_device_train_batch_size",
        sizes.micro,
        "measured" if choice.is_timed else "rule",
        because,
        facts=_evidence(choice),
        alternatives=tuple(
            Alternative(size, _told_size(size, sizes.checkpointing, choice))
            for size in sorted(choice.candidates)
            if size != sizes.micro
        ),
        limits=_limits(choice),
    )


def _told_size(size: int, checkpointing: Checkpointing, choice: Choice) -> str:
    peak = format_bytes(choice.memory.worst_case_bytes(size, checkpointing))
    if choice.has_died(size, checkpointing):
        return "a trial of no more rows ran out of memory"
    if not choice.fits(size, checkpointing):
        return f"predicted peak {peak} is over the limit, or within 5% of it"
    if not choice.is_by_speed:
        return f"predicted peak {peak}"
    return f"{choice.tokens_per_s(size, checkpointing):,.0f} tokens/s, predicted peak {peak}"


def _eval_size(resolved: ResolvedConfig, micro: int) -> Decision:
    asked = resolved.config.per_device_eval_batch_size
    if asked != "auto":
        because, value = "the loss does not depend on it", asked
    else:
        because, value = "the training micro-batch; the loss does not depend on it", micro
    return decision(
        resolved,
        "per_device_eval_batch_size",
        value,
        "rule",
        because,
        limits="a forward pass alone would take more; no size was timed",
    )


def _total(resolved: ResolvedConfig, given: GivenSizes, target: Target, sizes: Sizes) -> Decision:
    equation = _equation(sizes, given.ranks)
    if given.total is not None:
        because = equation
    elif given.micro is not None and given.accumulation is not None:
        because = f"both factors are set: {equation}"
    elif sizes.total != target.size:
        because = f"near {target.size} ({target.because}): {equation}"
    else:
        because = target.because
    is_aimed = given.total is None and sizes.total == target.size
    return decision(
        resolved,
        "global_batch_size",
        sizes.total,
        target.origin if given.total is None else "rule",
        because,
        facts=target.facts,
        alternatives=target.alternatives if is_aimed else (),
        limits=target.limits,
    )


def _checkpointing(resolved: ResolvedConfig, sizes: Sizes, choice: Choice) -> Decision:
    chosen = choice.memory.worst_case_bytes(sizes.micro, sizes.checkpointing)
    figures = (
        f"predicted peak {format_bytes(chosen)} at micro-batch {sizes.micro:,}, "
        f"limit {format_bytes(choice.room.limit_bytes)}"
    )
    others: tuple[Checkpointing, ...] = ("off", "full")
    return decision(
        resolved,
        "activation_checkpointing",
        sizes.checkpointing,
        "measured" if choice.is_timed else "rule",
        figures,
        facts=_evidence(choice),
        alternatives=tuple(
            Alternative(other, _told_exchange(sizes, other, choice))
            for other in others
            if other != sizes.checkpointing
        ),
        limits=_limits(choice),
    )


def _told_exchange(sizes: Sizes, other: Checkpointing, choice: Choice) -> str:
    """Memory and time of another checkpointing against the chosen one."""
    chosen = choice.memory.worst_case_bytes(sizes.micro, sizes.checkpointing)
    peak = choice.memory.worst_case_bytes(sizes.micro, other)
    change = abs(peak - chosen)
    more_or_less = "more" if peak > chosen else "less"
    told = f"{format_bytes(change)} ({percent(change, chosen)}) {more_or_less} memory"
    if choice.speed is None:
        return f"{told}; full recomputation is about a third more operations"
    rows = choice.memory.rows_in_update(sizes.micro)
    seconds = choice.speed.update_s(rows, sizes.micro, other)
    now = choice.speed.update_s(rows, sizes.micro, sizes.checkpointing)
    slower = "more" if seconds > now else "less"
    measured = "" if other in choice.speed.time.fits else ", by arithmetic"
    return f"{told}, {percent(abs(seconds - now), now)} {slower} time{measured}"


def _evidence(choice: Choice) -> tuple[str, ...]:
    base = ("rows.length_max", "device.memory_available_bytes")
    return ("trials.points", *base) if choice.memory.measured is not None else base


def _limits(choice: Choice) -> str:
    measured = choice.memory.measured
    if measured is None:
        return "memory is arithmetic, for a micro-batch of the longest rows; no size was timed"
    return (
        "fitted to a few updates on the longest rows (memory within "
        f"{measured.relative_residual:.1%} of them); a model, method or precision that differs "
        "is measured anew"
    )


def _not_measured(choice: Choice, checkpointing: Checkpointing) -> tuple[str, ...]:
    not_measured = []
    if choice.memory.measured is None:
        not_measured.append("peak memory (arithmetic, for a micro-batch of the longest rows)")
    elif checkpointing not in choice.memory.measured.curves:
        not_measured.append(
            f"activation_checkpointing {checkpointing} itself (it lies between two that were tried)"
        )
    if is_elsewhere(choice.memory.facts):
        not_measured.append("seconds an update (arithmetic on the device's datasheet)")
    elif not choice.is_timed:
        not_measured += [
            "seconds an update (operations over the timed matmul rate, at an assumed utilisation)",
            "the speed of each micro-batch size (the largest that fits is taken)",
        ]
    if "noise.scale_examples" not in choice.memory.facts:
        not_measured.append(_without_noise_scale(choice.memory.facts))
    return tuple(not_measured)


def _without_noise_scale(facts: Facts) -> str:
    told = "the gradient's noise scale"
    for fact_id in ("noise.unidentified", "noise.failure"):
        if fact_id in facts:
            return f"{told} (probed without a result: {facts.text(fact_id)})"
    return f"{told} (what a larger global batch is worth)"


def _warnings(sizes: Sizes, choice: Choice) -> tuple[str, ...]:
    warnings = []
    if not is_friendly(sizes.micro):
        needs = " and ".join(
            f"{size} ({_told_size(size, sizes.checkpointing, choice)})"
            for size in nearest_friendly(sizes.micro)
        )
        warnings.append(
            f"A micro-batch of {sizes.micro} is no size that kernels are tuned for (8·k, 4, 2, "
            f"1). The nearest are {needs}."
        )
    num_rows = choice.memory.facts.integer("rows.num_rows")
    if sizes.total > num_rows:
        warnings.append(
            f"A global batch of {sizes.total:,} is more than the {counted(num_rows, 'row')}: an "
            "update has each of them once, and no more."
        )
    peak = choice.memory.worst_case_bytes(sizes.micro, sizes.checkpointing)
    if choice.has_died(sizes.micro, sizes.checkpointing):
        warnings.append(
            f"A trial of no more than a micro-batch of {sizes.micro} ran out of memory."
        )
    elif not choice.room.holds(peak):
        warnings.append(
            f"A micro-batch of {sizes.micro} may not fit: predicted peak {format_bytes(peak)}, "
            f"limit {format_bytes(choice.room.limit_bytes)}."
        )
    elif peak > choice.room.free_bytes:
        warnings.append(
            f"A micro-batch of {sizes.micro} is within memory_limit and over what is free now: "
            f"predicted peak {format_bytes(peak)}, free {format_bytes(choice.room.free_bytes)}."
        )
    return tuple(warnings)
