"""Which number went wrong, and what to say of it. It stops; it repairs nothing.

Stated rules:
- not finite: the loss or the gradient norm of an update is NaN or infinite. Under fp16 the update
  is not applied, the loss scale halved and the same rows are taken again; `MAX_SKIPS_IN_A_ROW` of
  them in a row stop. In other precisions the first one stops.
- collapsed: in a 16-bit precision the loss of an update that has tokens to train on is exactly
  0.0. In fp32 that is what perfectly learned rows give.
- diverged: the mean loss of the last `DIVERGENCE_WINDOW` updates is above both twice the first
  update's and 2 nats over it. A model that has learned nothing stays at the first update's loss.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from trimtab.engine.precision import LossScale
from trimtab.engine.step import StepResult
from trimtab.hyperparameters.config import Precision

MAX_SKIPS_IN_A_ROW = 16
DIVERGENCE_WINDOW = 5
DIVERGENCE_RATIO = 2.0
DIVERGENCE_MARGIN_NATS = 2.0

Fault = Literal["overflow persisted", "not finite", "collapsed", "diverged"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guard says of an update: go on (`fault` None), or stop and why."""

    fault: Fault | None
    reason: str = ""


GO_ON = Verdict(None)


@dataclass
class Guard:
    """Watches the updates of one run in one precision."""

    first_loss: float | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=DIVERGENCE_WINDOW))

    def judge(
        self, result: StepResult, precision: Precision, loss_scale: LossScale | None
    ) -> Verdict:
        """The verdict on an update; call it once for each, in order."""
        if not result.applied:
            return self._not_applied(result, loss_scale)
        if result.loss == 0.0 and precision != "fp32":
            return Verdict("collapsed", "the loss fell to exactly 0.0")
        if self.first_loss is None:
            self.first_loss = result.loss
        self.recent.append(result.loss)
        mean = math.fsum(self.recent) / len(self.recent)
        limit = max(self.first_loss * DIVERGENCE_RATIO, self.first_loss + DIVERGENCE_MARGIN_NATS)
        if len(self.recent) == DIVERGENCE_WINDOW and mean > limit:
            return Verdict(
                "diverged",
                f"the mean loss of the last {DIVERGENCE_WINDOW} updates is {mean:.3f}, "
                f"where the first was {self.first_loss:.3f} (limit {limit:.3f})",
            )
        return GO_ON

    def _not_applied(self, result: StepResult, loss_scale: LossScale | None) -> Verdict:
        if loss_scale is None:
            number = "loss" if not math.isfinite(result.loss) else "gradient norm"
            value = result.loss if number == "loss" else result.grad_norm
            return Verdict("not finite", f"the {number} is {value}")
        if loss_scale.num_skips_in_a_row >= MAX_SKIPS_IN_A_ROW:
            return Verdict(
                "overflow persisted",
                f"{loss_scale.num_skips_in_a_row} updates in a row overflowed, down to a loss "
                f"scale of {loss_scale.scale:g}",
            )
        return GO_ON
