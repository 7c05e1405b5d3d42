"""A plan with constructed measurements of each probe, for the screens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from planning.facts import planned

from trimtab.planning.fact import Fact
from trimtab.planning.plan import Plan

GIB = 2**30


def _point(checkpointing: str, num_rows: int, peak_bytes: int | None) -> dict[str, Any]:
    return {
        "activation_checkpointing": checkpointing,
        "num_rows": num_rows,
        "num_micro_batches": 2,
        "num_tokens": 300 * num_rows,
        "num_scored": 100 * num_rows,
        "sum_length_squared": 300 * 300 * num_rows,
        "update_s": [9.0, 0.5 * num_rows],
        "peak_bytes": peak_bytes,
    }


MEASURED = (
    Fact("device.name", "a constructed device"),
    Fact("device.matmul_flops_per_s.bf16", 444e9, "FLOP/s", 5e9, "a constructed device", "", 0.5),
    Fact(
        "trials.points",
        [_point("off", 1, GIB), _point("off", 4, 3 * GIB), _point("full", 8, None)],
        method="real updates",
        cost_s=24.0,
    ),
    Fact("precision.update_s.bf16", 0.5, "s", cost_s=3.0),
    Fact("precision.gradient_cosine.bf16", 0.9991),
    Fact("precision.overflows.bf16", False),
    Fact("precision.update_s.fp32", 1.25, "s", cost_s=2.0),
    Fact("precision.update_s.fp16", 0.75, "s"),
    Fact("precision.gradient_cosine.fp16", 0.99),
    Fact("precision.overflows.fp16", True),
    Fact("rate_range.losses", [[1e-4, 2.5], [1e-3, 2.0], [1e-2, 9.0], [0.1, None]], cost_s=8.0),
    Fact("rate_range.diverging_rate", 1e-2),
    Fact("noise.scale_examples", 12.3, "examples"),
    Fact("noise.low_examples", 8.0, "examples"),
    Fact("noise.high_examples", 20.0, "examples"),
    Fact("noise.num_updates", 72, "updates"),
)
RESTING_ON = {
    "per_device_train_batch_size": ("trials.points",),
    "learning_rate": ("rate_range.losses", "rate_range.diverging_rate"),
    "precision": ("device.matmul_flops_per_s.bf16",),
}


def measured_plan(**values: Any) -> Plan:
    """The planner's plan with `MEASURED` among its facts, and decisions that name them."""
    plan = planned(**values)
    known = {fact.id: fact for fact in (*plan.facts, *MEASURED)}
    decisions = tuple(
        replace(one, facts=(*one.facts, *RESTING_ON.get(one.name, ()))) for one in plan.decisions
    )
    predictions = replace(
        plan.predictions, peak_memory_bytes=2 * GIB, worst_case_memory_bytes=3 * GIB
    )
    return replace(plan, facts=tuple(known.values()), decisions=decisions, predictions=predictions)
