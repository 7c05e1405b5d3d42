"""What a plan's probes found and what that cost, one line a probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from trimtab.planning.device_sheets import is_elsewhere
from trimtab.planning.discarding import DISCARDED, family_of
from trimtab.planning.fact import Fact, Facts
from trimtab.planning.plan import Plan
from trimtab.planning.trials import Point, measured_points
from trimtab.report.words import (
    bytes_text,
    counted,
    float_text,
    quantity_text,
    rate_text,
    seconds_text,
    value_text,
)
from trimtab.workflow.recalling import RECALLED

FORMATS = ("bf16", "fp16", "fp32")
SHARED_COSTS = {"trials", "precision", "rate_range", "noise"}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One probe's facts in a line; `cost_s` is what it took when it was measured."""

    probe: str
    found: str
    cost_s: float


def measurements(plan: Plan) -> tuple[Measurement, ...]:
    """The probes that the plan has facts of, in the order in which they are asked."""
    facts = Facts().adding(plan.facts)
    return tuple(
        Measurement(probe, found, sum(fact.cost_s for fact in _of(plan.facts, prefixes)))
        for probe, prefixes, describe in _PROBES
        if any(True for _ in _of(plan.facts, prefixes)) and (found := describe(facts))
    )


def is_recalled(plan: Plan) -> bool:
    """Does the plan rest on what was measured before?"""
    return any(RECALLED in fact.method for fact in plan.facts)


def fact_text(fact: Fact) -> str:
    """The value with its unit, and what it spreads over."""
    told = quantity_text(fact.value, fact.unit)
    return told if fact.spread is None else f"{told} ± {quantity_text(fact.spread, fact.unit)}"


def cost_s(plan: Plan, fact: Fact) -> float:
    """Seconds that the fact took; a probe that shares one process has a cost as a whole."""
    probe = fact.id.partition(".")[0]
    if probe not in SHARED_COSTS:
        return fact.cost_s
    return sum(one.cost_s for one in _of(plan.facts, (probe,)))


def tokens_per_s(point: Point) -> float | None:
    """Tokens of an update by its seconds after the first, which warms up; None without one."""
    seconds = warm_update_s(point)
    return point.size.num_tokens * point.trial.num_micro_batches / seconds if seconds else None


def warm_update_s(point: Point) -> float | None:
    """Seconds of the fastest update after the first, of the first where it is the only one."""
    return min(point.update_s[1:] or point.update_s, default=None)


def _of(facts: Sequence[Fact], prefixes: Sequence[str]) -> Iterator[Fact]:
    return (fact for fact in facts if fact.id.partition(".")[0] in prefixes)


def _device(facts: Facts) -> str:
    if is_elsewhere(facts):
        memory = bytes_text(facts.number("device.memory_bytes"))
        return f"{facts.text('device.name')}: {memory} by its datasheet"
    rates = [
        f"{name} {rate_text(facts.number(rate_id), 'FLOP/s')}"
        for name in FORMATS
        if (rate_id := f"device.matmul_flops_per_s.{name}") in facts
    ]
    free = f"{bytes_text(facts.number('device.memory_available_bytes'))} free"
    return "; ".join([facts.text("device.name"), free, *rates])


def _model(facts: Facts) -> str:
    return f"{facts.text('model.architecture')}, {facts.integer('model.num_parameters'):,} weights"


def _rows(facts: Facts) -> str:
    told = f"{counted(facts.integer('data.num_rows'), 'row')}, "
    num_tokens = facts.integer("data.num_tokens")
    told += counted(num_tokens, "token")
    margin = facts.by_id["data.num_tokens"].spread
    if margin is not None:
        told += f" ± {margin / num_tokens:.2%} (95%)"
    return f"{told}, the longest {facts.integer('data.length_max'):,}"


def _trials(facts: Facts) -> str:
    if "trials.failure" in facts:
        return facts.text("trials.failure")
    points = measured_points(facts)
    num_updates = sum(len(point.update_s) for point in points)
    sizes = sorted({point.trial.num_rows for point in points})
    rows = f"{sizes[0]} to {sizes[-1]} rows" if len(sizes) > 1 else counted(sizes[0], "row")
    peaks = [point.peak_bytes for point in points if point.peak_bytes is not None]
    speeds = [speed for point in points if (speed := tokens_per_s(point)) is not None]
    told = f"{counted(num_updates, 'real update')} with micro-batches of {rows}"
    if peaks:
        ends = dict.fromkeys((bytes_text(min(peaks)), bytes_text(max(peaks))))
        told += f"; peaks of {' to '.join(ends)}"
    if speeds:
        told += f"; up to {max(speeds):,.0f} tokens/s"
    num_died = len(points) - len(peaks)
    return told + (f"; {num_died} outgrew the memory" if num_died else "")


def _precision(facts: Facts) -> str:
    if "precision.failure" in facts:
        return facts.text("precision.failure")
    parts = []
    for name in FORMATS:
        if f"precision.update_s.{name}" not in facts:
            continue
        told = f"{name} {seconds_text(facts.number(f'precision.update_s.{name}'))} an update"
        if (cosine_id := f"precision.gradient_cosine.{name}") in facts and name != "fp32":
            told += f", gradient cosine {facts.number(cosine_id):.4f}"
        if (overflow_id := f"precision.overflows.{name}") in facts and facts.value(overflow_id):
            told += ", overflows"
        parts.append(told)
    return "; ".join(parts)


def _rate_range(facts: Facts) -> str:
    if "rate_range.failure" in facts:
        return facts.text("rate_range.failure")
    losses = cast(list[list[Any]], facts.value("rate_range.losses"))
    told = f"{counted(len(losses), 'rate')} from {float_text(losses[0][0])} to "
    told += float_text(losses[-1][0])
    harmful = facts.value("rate_range.diverging_rate")
    if harmful is None:
        return f"{told}; none did harm"
    return f"{told}; harm begins at {value_text(harmful)}"


def _noise(facts: Facts) -> str:
    if "noise.failure" in facts:
        return facts.text("noise.failure")
    if "noise.unidentified" in facts:
        return f"not identified: {facts.text('noise.unidentified')}"
    low, high = facts.number("noise.low_examples"), facts.number("noise.high_examples")
    source = "at the base weights" if "noise.key" in facts else "of earlier runs"
    return (
        f"{facts.number('noise.scale_examples'):.3g} examples ({low:.3g} to {high:.3g}), from "
        f"{counted(facts.integer('noise.num_updates'), 'update')} {source}"
    )


def _discarded(facts: Facts) -> str:
    discarded = {family_of(fact) for fact in facts if fact.id.startswith(DISCARDED)}
    names = [name for name, families, _ in _PROBES if discarded & {*families}]
    return f"{', '.join(names)}: measured under settings that the plan does not take"


_PROBES: tuple[tuple[str, tuple[str, ...], Callable[[Facts], str]], ...] = (
    ("device", ("device",), _device),
    ("model", ("model",), _model),
    ("rows", ("data", "rows", "run"), _rows),
    ("memory and speed", ("trials",), _trials),
    ("precision", ("precision",), _precision),
    ("learning-rate range", ("rate_range",), _rate_range),
    ("gradient noise", ("noise",), _noise),
    ("not used", ("discarded",), _discarded),
)


def total_cost_s(measured: Sequence[Measurement]) -> float:
    return sum(one.cost_s for one in measured)
