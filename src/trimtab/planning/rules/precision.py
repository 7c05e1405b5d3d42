"""The number format of the matrix products: what the device has, and what its timing says."""

from __future__ import annotations

from trimtab.errors import ConfigError
from trimtab.hyperparameters.config import Precision
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Alternative
from trimtab.planning.fact import Facts
from trimtab.planning.rules.ruling import Ruling, decision, where_set


def decide_precision(resolved: ResolvedConfig, facts: Facts) -> Ruling:
    """bf16 where native and no slower than fp32; on CUDA fp16 by the same test; else fp32.

    Raises ConfigError for a format that the device did not run at all.
    """
    asked = resolved.config.precision
    precision = _fastest_safe(facts) if asked == "auto" else asked
    if rate_id(precision) not in facts:
        raise ConfigError(
            f"precision {precision}: {facts.text('device.name')} does not run it.",
            where=where_set(resolved, "precision"),
            hint="Take `precision: auto`, which uses what the device has.",
        )
    others = [other for other in _FORMATS if other != precision]
    made = decision(
        resolved,
        "precision",
        precision,
        "measured",
        _described(precision, facts),
        facts=tuple(rate_id(name) for name in _FORMATS if rate_id(name) in facts),
        alternatives=tuple(Alternative(name, _described(name, facts)) for name in others),
        limits="timed on square matrix products, not on this run's own update",
    )
    warnings: tuple[str, ...] = ()
    if not is_native(precision, facts):
        warnings = (
            f"precision {precision} is emulated on {facts.text('device.name')}: "
            f"{_described(precision, facts)}. `precision: auto` takes {_fastest_safe(facts)}.",
        )
    return Ruling((made,), warnings)


_FORMATS: tuple[Precision, ...] = ("bf16", "fp16", "fp32")


def rate_id(precision: Precision) -> str:
    """The fact that holds the format's timed rate in FLOP/s."""
    return f"device.matmul_flops_per_s.{precision}"


def is_native(precision: Precision, facts: Facts) -> bool:
    return precision == "fp32" or bool(facts.value(f"device.native.{precision}"))


def _fastest_safe(facts: Facts) -> Precision:
    if _no_slower("bf16", facts):
        return "bf16"
    # Without bf16's range, fp16 pays only where its tensor cores do: on CUDA.
    if facts.text("device.kind") == "cuda" and _no_slower("fp16", facts):
        return "fp16"
    return "fp32"


def _no_slower(precision: Precision, facts: Facts) -> bool:
    if not is_native(precision, facts) or rate_id(precision) not in facts:
        return False
    return facts.number(rate_id(precision)) >= facts.number(rate_id("fp32"))


def _described(precision: Precision, facts: Facts) -> str:
    name = facts.text("device.name")
    if rate_id(precision) not in facts:
        return f"{name} does not run it"
    rate = facts.number(rate_id(precision))
    figure = f"{rate / 1e9:,.3g} GFLOP/s"
    if precision == "fp32":
        return f"{figure} timed; no rounding beyond fp32's"
    ratio = rate / facts.number(rate_id("fp32"))
    native = "native" if is_native(precision, facts) else "emulated"
    range_note = "; its small range needs loss scaling" if precision == "fp16" else ""
    return f"{native}, {figure} timed, {ratio:.2g}× fp32's rate{range_note}"
