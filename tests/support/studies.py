"""Constructed results of studies, for pages and screens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from trimtab.study.claims import CLAIMS
from trimtab.study.guide_result import ClaimResult, GuideResult
from trimtab.study.result import ArmResult, StudyResult
from trimtab.study.statistics import compare

MARGIN = 0.005
REFERENCE = (2.00, 2.02, 1.98)


def arm(
    value: Any, losses: Sequence[float] | None = None, *, num_arms: int = 1, num_steps: int = 3
) -> ArmResult:
    """An arm with these losses by seed; the reference where there are none."""
    mine = REFERENCE if losses is None else tuple(losses)
    return ArmResult(
        value=value,
        losses=mine,
        failures=tuple(None if math.isfinite(loss) else "not finite: a loss" for loss in mine),
        seconds=12.5,
        peak_memory_bytes=3 * 2**29,
        num_steps=num_steps,
        num_tokens=4096,
        learning_rate=1e-4,
        rate_at_edge=False,
        curves=tuple((loss + 0.5, loss + 0.2, loss) for loss in mine),
        comparison=None
        if losses is None
        else compare(REFERENCE, mine, equivalence_margin=MARGIN, num_arms=num_arms),
    )


def study_of(*arms: ArmResult, name: str = "learning_rate", **changes: Any) -> StudyResult:
    values: dict[str, Any] = {
        "folder": "runs/study-mine",
        "seeds": (42, 43, 44),
        "equivalence_margin": MARGIN,
        "rate_may_move": False,
        "is_retuned": False,
        "device": "a constructed device",
    }
    return StudyResult(name=name, arms=arms, **{**values, **changes})


def four_verdicts() -> StudyResult:
    """A reference and an arm of each verdict, and one that came to no loss."""
    return study_of(
        arm(1e-4),
        arm(3e-4, (1.90, 1.91, 1.89), num_arms=5),
        arm(1e-5, (2.20, 2.22, 2.19), num_arms=5),
        arm(1.1e-4, (2.0001, 2.0201, 1.9799), num_arms=5),
        arm(6e-4, (1.97, 2.03, 1.96), num_arms=5),
        arm(1.0, (math.inf, math.inf, math.inf), num_arms=5),
    )


def guide_result() -> GuideResult:
    outcomes = ("held", "not held", "undecided")
    claims = tuple(
        ClaimResult(
            claim.row,
            claim.says,
            claim.name,
            (claim.reference, *claim.others),
            claim.quantity,
            outcomes[position % 3],  # type: ignore[arg-type]
            f"figures of claim {position}",
            (compare(REFERENCE, (1.9, 1.91, 1.89), equivalence_margin=MARGIN),),
        )
        for position, claim in enumerate(CLAIMS)
    )
    return GuideResult("runs/study-guide", claims, (42, 43, 44), 40, MARGIN)
