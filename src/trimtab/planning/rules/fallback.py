"""What a run goes on in when its number format failed: one format safer."""

from __future__ import annotations

from trimtab.hyperparameters.config import Precision
from trimtab.planning.decision import Alternative, Decision
from trimtab.planning.fact import Facts


def safer_precision(failed: Precision, reason: str, facts: Facts) -> Decision | None:
    """fp16 → bf16 where the device has it natively (emulation does not count) → fp32 → nothing.

    `reason` is the guard's. Needs the fact device.native.bf16.
    """
    if failed == "fp32":
        return None
    has_bf16 = bool(facts.value("device.native.bf16"))
    value: Precision = "bf16" if failed == "fp16" and has_bf16 else "fp32"
    native = (
        ""
        if failed == "bf16"
        else ("; bf16 is native here" if has_bf16 else "; bf16 is not native here")
    )
    return Decision(
        "precision",
        value,
        "measured",
        f"{failed} failed: {reason}{native}",
        facts=("device.native.bf16",),
        alternatives=(Alternative(failed, reason),),
        limits="a fault of the data or of the learning rate would come back, and then stops",
    )
