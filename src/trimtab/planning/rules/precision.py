"""The number format of the matrix products: what the device has, and what timing it says."""

from __future__ import annotations

from trimtab.errors import ConfigError
from trimtab.hyperparameters.config import Precision
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Alternative
from trimtab.planning.fact import Facts
from trimtab.planning.rules.ruling import Ruling, decision, where_set

MIN_GRADIENT_COSINE = 0.95
"""Below this a format turns the gradient by more than 18°; a house rule, no source is known. The
gradients of two halves of a batch differ by far more than that."""


def decide_precision(resolved: ResolvedConfig, facts: Facts) -> Ruling:
    """bf16 where native, no slower than fp32 and true to its gradient; on CUDA fp16 by the same
    test; else fp32.

    Speed is that of real updates where they were timed, else of matrix products; where nothing was
    timed, a native format is taken to be faster. A format is left where others were timed in
    updates and it was not. Raises ConfigError for one that the device did not run, in products or
    in an update.
    """
    asked = resolved.config.precision
    precision = _fastest_safe(facts) if asked == "auto" else asked
    if not _runs(precision, facts) or _refuses_update(precision, facts):
        raise ConfigError(
            f"precision {precision}: {facts.text('device.name')} does not run it.",
            where=where_set(resolved, "precision"),
            hint="Take `precision: auto`, which uses what the device has.",
        )
    others = [other for other in FORMATS if other != precision]
    made = decision(
        resolved,
        "precision",
        precision,
        "measured" if _was_timed(facts) else "rule",
        _described(precision, facts),
        facts=_facts(facts),
        alternatives=tuple(Alternative(name, _described(name, facts)) for name in others),
        limits=_limits(precision, facts),
    )
    return Ruling((made,), _warnings(precision, facts), _not_measured(precision, facts))


FORMATS: tuple[Precision, ...] = ("bf16", "fp16", "fp32")
_MEASURES = ("update_s", "gradient_cosine", "gradient_norm_ratio", "overflows", "lost_update_share")


def rate_id(precision: Precision) -> str:
    """The fact that holds the format's timed rate in FLOP/s."""
    return f"device.matmul_flops_per_s.{precision}"


def is_native(precision: Precision, facts: Facts) -> bool:
    return precision == "fp32" or bool(facts.value(f"device.native.{precision}"))


def worth_trying(facts: Facts) -> tuple[Precision, ...]:
    """The formats whose updates a probe should time: native ones that products did not rule out."""
    return tuple(
        precision
        for precision in FORMATS
        if precision == "fp32" or (_runs(precision, facts) and _no_slower(precision, facts))
    )


def _fastest_safe(facts: Facts) -> Precision:
    if _is_good("bf16", facts):
        return "bf16"
    # Without bf16's range, fp16 pays only where its tensor cores do: on CUDA.
    if facts.text("device.kind") == "cuda" and _is_good("fp16", facts):
        return "fp16"
    return "fp32"


def _is_good(precision: Precision, facts: Facts) -> bool:
    if not _no_slower(precision, facts):
        return False
    if not _is_updated(precision, facts):
        return not _were_compared(facts)
    if facts.value(f"precision.overflows.{precision}"):
        return False
    # There is no cosine where fp32's own gradient overflows.
    return (
        _cosine_id(precision) not in facts
        or facts.number(_cosine_id(precision)) >= MIN_GRADIENT_COSINE
    )


def _is_updated(precision: Precision, facts: Facts) -> bool:
    return f"precision.update_s.{precision}" in facts


def _were_compared(facts: Facts) -> bool:
    """Whether updates in every format that was worth trying came to their end."""
    return _is_updated("fp32", facts) and "precision.failure" not in facts


def _refuses_update(precision: Precision, facts: Facts) -> bool:
    """Lost updates are counted for each format that is tried, before its own update."""
    was_tried = f"precision.lost_update_share.{precision}" in facts
    return was_tried and _were_compared(facts) and not _is_updated(precision, facts)


def _no_slower(precision: Precision, facts: Facts) -> bool:
    if not is_native(precision, facts):
        return False
    if _is_updated(precision, facts) and _is_updated("fp32", facts):
        seconds = facts.number(f"precision.update_s.{precision}")
        return seconds <= facts.number("precision.update_s.fp32")
    if not _was_timed(facts):
        return True
    if rate_id(precision) not in facts:
        return False
    return facts.number(rate_id(precision)) >= facts.number(rate_id("fp32"))


def _runs(precision: Precision, facts: Facts) -> bool:
    return rate_id(precision) in facts or not _was_timed(facts)


def _was_timed(facts: Facts) -> bool:
    return rate_id("fp32") in facts


def _cosine_id(precision: Precision) -> str:
    return f"precision.gradient_cosine.{precision}"


def _facts(facts: Facts) -> tuple[str, ...]:
    named = [
        *(rate_id(name) for name in FORMATS),
        *(f"device.native.{name}" for name in FORMATS if name != "fp32"),
        *(f"precision.{measure}.{name}" for name in FORMATS for measure in _MEASURES),
        "precision.failure",
    ]
    return tuple(fact_id for fact_id in named if fact_id in facts)


def _described(precision: Precision, facts: Facts) -> str:
    name = facts.text("device.name")
    if not _runs(precision, facts):
        return f"{name} does not run it"
    if _refuses_update(precision, facts):
        return f"{name} refused an update in it"
    native = "native" if is_native(precision, facts) else "emulated"
    if not _was_timed(facts):
        return f"{native} on {name}, not timed" if precision != "fp32" else "runs everywhere"
    range_note = "; its small range needs loss scaling" if precision == "fp16" else ""
    if _is_updated(precision, facts):
        return f"{native}, {_measured_update(precision, facts)}{range_note}"
    figure = f"{facts.number(rate_id(precision)) / 1e9:,.3g} GFLOP/s"
    if precision == "fp32":
        return f"{figure} timed; no rounding beyond fp32's"
    ratio = facts.number(rate_id(precision)) / facts.number(rate_id("fp32"))
    return f"{native}, {figure} timed, {ratio:.2g}× fp32's rate{range_note}"


def _measured_update(precision: Precision, facts: Facts) -> str:
    seconds = facts.number(f"precision.update_s.{precision}")
    told = f"{seconds:.3g} s an update"
    if facts.value(f"precision.overflows.{precision}"):
        return f"{told}, and its loss or gradient overflows"
    if precision == "fp32":
        return f"{told}; the reference of the gradient"
    ratio = facts.number("precision.update_s.fp32") / seconds
    told += f", {ratio:.2g}× as fast as fp32"
    if _cosine_id(precision) not in facts:
        return f"{told}; its gradient has nothing to be compared with, as fp32's overflows"
    cosine = facts.number(_cosine_id(precision))
    norm = facts.number(f"precision.gradient_norm_ratio.{precision}")
    return f"{told}; its gradient has cosine {cosine:.4f} and {norm:.3g}× the norm of fp32's"


def _limits(precision: Precision, facts: Facts) -> str:
    if _is_updated(precision, facts):
        told = "one micro-batch of the run's rows, at the start of training"
    elif _was_timed(facts):
        told = "timed on square matrix products, not on this run's own update"
    else:
        told = "nothing was timed"
    return told + _told_failure(facts)


def _not_measured(precision: Precision, facts: Facts) -> tuple[str, ...]:
    if _is_updated(precision, facts):
        return ()
    return (f"what the number format does to this run's gradient{_told_failure(facts)}",)


def _told_failure(facts: Facts) -> str:
    if "precision.failure" not in facts:
        return ""
    return f"; comparing number formats failed: {facts.text('precision.failure')}"


def _warnings(precision: Precision, facts: Facts) -> tuple[str, ...]:
    if is_native(precision, facts):
        return ()
    return (
        f"precision {precision} is emulated on {facts.text('device.name')}: "
        f"{_described(precision, facts)}. `precision: auto` takes {_fastest_safe(facts)}.",
    )
