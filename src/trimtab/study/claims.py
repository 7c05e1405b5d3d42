"""The guide's claims as data: what is compared, in which quantity, and when a claim holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from trimtab.planning.plan import Plan

Quantity = Literal["held-out loss", "seconds", "peak memory"]
Expectation = Literal["lower", "not higher", "same", "none lower", "about 40% lower"]
Outcome = Literal["held", "not held", "undecided"]

MARGINS: Mapping[Quantity, float] = MappingProxyType({"seconds": 0.03, "peak memory": 0.03})
"""Shares of the reference that count as no difference; of the loss it is the study's margin."""
ABOUT_40_PERCENT = (-0.5, -0.3)

_PLANNED = "planned"
_TWICE = "twice the planned"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of the guide's row `row`: `says` is true where `others` differ from `reference` in
    `quantity` as `expects` says. Values may stand for what the plan decides."""

    row: int
    says: str
    name: str
    reference: Any
    others: tuple[Any, ...]
    quantity: Quantity
    expects: Expectation


CLAIMS = (
    Claim(
        1,
        "a larger micro-batch trains faster",
        "per_device_train_batch_size",
        1,
        (_PLANNED,),
        "seconds",
        "lower",
    ),
    Claim(
        1,
        "a larger batch learns as well from the same rows",
        "global_batch_size",
        _PLANNED,
        (_TWICE,),
        "held-out loss",
        "not higher",
    ),
    Claim(
        3,
        "padding every row to one length leaves the loss as it is",
        "padding",
        "none",
        ("max_length",),
        "held-out loss",
        "same",
    ),
    Claim(
        4,
        "small batches whose gradients add up do what one large batch does",
        "per_device_train_batch_size",
        1,
        (_PLANNED,),
        "held-out loss",
        "same",
    ),
    Claim(
        5,
        "gradient checkpointing saves about 40% of the memory",
        "activation_checkpointing",
        "off",
        ("full",),
        "peak memory",
        "about 40% lower",
    ),
    Claim(
        9,
        "a linear schedule suits best",
        "lr_scheduler_type",
        "linear",
        ("cosine", "constant_with_warmup"),
        "held-out loss",
        "none lower",
    ),
    Claim(
        10,
        "a warmup over the first tenth helps",
        "warmup_steps",
        0,
        (0.1,),
        "held-out loss",
        "lower",
    ),
    Claim(
        11,
        "no weight decay is needed",
        "weight_decay",
        0.0,
        (0.1,),
        "held-out loss",
        "none lower",
    ),
    Claim(
        13,
        "bfloat16 learns as well as float32",
        "precision",
        "fp32",
        ("bf16",),
        "held-out loss",
        "not higher",
    ),
    Claim(
        13,
        "bfloat16 is faster than float32",
        "precision",
        "fp32",
        ("bf16",),
        "seconds",
        "lower",
    ),
)


def values_of(claim: Claim, plan: Plan) -> tuple[Any, ...]:
    """The reference and the others, as this plan has them."""
    planned = plan.decision(claim.name).value
    return tuple(
        planned if value == _PLANNED else 2 * planned if value == _TWICE else value
        for value in (claim.reference, *claim.others)
    )
