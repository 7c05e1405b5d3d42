"""Which number went wrong, and what to say of it. It stops; it repairs nothing.

Stated rules, in the order in which an update is asked; all but the last are asked before the
weights move, and an update that fails one is not applied:
- not finite: the loss or the gradient norm of an update is NaN or infinite. Under fp16 a gradient
  that overflows beside a finite loss is no fault yet: the loss scale is halved and the same rows
  are taken again; `MAX_SKIPS_IN_A_ROW` of them in a row are (`overflow persisted`).
- collapsed: in a 16-bit precision the loss of an update that has tokens to train on is exactly
  0.0. In fp32 that is what perfectly learned rows give.
- loss spike: the loss is over the median of the last `SPIKE_WINDOW` applied updates by more than
  `SPIKE_MARGIN_NATS` and by more than `SPIKE_DEVIATIONS` of their standard deviations, estimated as
  1.4826 times the median absolute deviation; and over the highest of all applied updates by more
  than `RECORD_MARGIN_NATS`, since rare hard rows come again. An update's loss is a mean over ragged
  rows, so the margins in nats grow with the square root of what it lacks of `STEADY_EXAMPLES`
  examples and `STEADY_TOKENS` trainable tokens. Not asked before `MIN_SPIKE_HISTORY` updates.
- diverged: the median loss of the last `DIVERGENCE_WINDOW` updates is above both twice the first
  update's and 2 nats over it; or `MAX_SPIKES_IN_A_ROW` updates in a row were spikes, which no
  batch explains. A model that has learned nothing stays at the first update's loss.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from trimtab.engine.precision import LossScale
from trimtab.engine.step import StepResult
from trimtab.hyperparameters.config import Precision

MAX_SKIPS_IN_A_ROW = 16
SPIKE_WINDOW = 32
MIN_SPIKE_HISTORY = 20
SPIKE_MARGIN_NATS = 3.0
SPIKE_DEVIATIONS = 10.0
RECORD_MARGIN_NATS = 2.0
STEADY_EXAMPLES = 8
STEADY_TOKENS = 64
MAX_SPIKES_IN_A_ROW = 3
NORMAL_DEVIATIONS_PER_MAD = 1.4826
DIVERGENCE_WINDOW = 5
DIVERGENCE_RATIO = 2.0
DIVERGENCE_MARGIN_NATS = 2.0

Fault = Literal["overflow persisted", "not finite", "collapsed", "loss spike", "diverged"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guard says of an update: go on (`fault` None), or stop and why."""

    fault: Fault | None
    reason: str = ""


GO_ON = Verdict(None)


@dataclass
class Guard:
    """What is remembered of a run's applied updates, and the spikes since the last of them."""

    first_loss: float | None = None
    highest_loss: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=SPIKE_WINDOW))
    num_spikes_in_a_row: int = 0

    def watching(
        self, precision: Precision, *, num_examples: int, num_trainable_tokens: int
    ) -> Watch:
        """The watch over one update of so many examples and trainable tokens."""
        return Watch(self, precision, self._loss_limit(num_examples, num_trainable_tokens))

    def _loss_limit(self, num_examples: int, num_trainable_tokens: int) -> float:
        if len(self.recent) < MIN_SPIKE_HISTORY:
            return math.inf
        middle = median(self.recent)
        deviation = NORMAL_DEVIATIONS_PER_MAD * median(abs(loss - middle) for loss in self.recent)
        lack = max(1.0, STEADY_EXAMPLES / num_examples, STEADY_TOKENS / num_trainable_tokens)
        widening = math.sqrt(lack)
        return max(
            middle + SPIKE_MARGIN_NATS * widening,
            middle + SPIKE_DEVIATIONS * deviation,
            self.highest_loss + RECORD_MARGIN_NATS * widening,
        )


@dataclass(frozen=True)
class Watch:
    """The guard over one update: `accepts_loss` before the weights move, `judge` afterwards.

    loss_limit: nats per trainable token; a loss above it is a spike.
    """

    guard: Guard
    precision: Precision
    loss_limit: float

    def accepts_loss(self, loss: float) -> bool:
        """Whether an update of this finite loss may be applied."""
        return loss <= self.loss_limit and not is_collapsed(loss, self.precision)

    def judge(self, result: StepResult, loss_scale: LossScale | None) -> Verdict:
        """The verdict on the update; call it once for each attempt, in order."""
        if not result.is_finite:
            return _not_finite(result, loss_scale)
        if is_collapsed(result.loss, self.precision):
            return COLLAPSED
        if not result.applied:
            return self._spike(result)
        return self._applied(result)

    def _spike(self, result: StepResult) -> Verdict:
        guard = self.guard
        guard.num_spikes_in_a_row += 1
        if guard.num_spikes_in_a_row >= MAX_SPIKES_IN_A_ROW:
            return Verdict(
                "diverged",
                f"{guard.num_spikes_in_a_row} updates in a row have a loss over the limit, the "
                f"last of them {result.loss:.3f} (limit {self.loss_limit:.3f})",
            )
        return Verdict(
            "loss spike",
            f"the loss of its batch is {result.loss:.3f}, where the last {len(guard.recent)} "
            f"updates have a median of {median(guard.recent):.3f} (limit {self.loss_limit:.3f})",
        )

    def _applied(self, result: StepResult) -> Verdict:
        guard = self.guard
        guard.num_spikes_in_a_row = 0
        if guard.first_loss is None:
            guard.first_loss = result.loss
        guard.highest_loss = max(guard.highest_loss, result.loss)
        guard.recent.append(result.loss)
        latest = list(guard.recent)[-DIVERGENCE_WINDOW:]
        middle = median(latest)
        limit = max(guard.first_loss * DIVERGENCE_RATIO, guard.first_loss + DIVERGENCE_MARGIN_NATS)
        if len(latest) == DIVERGENCE_WINDOW and middle > limit:
            return Verdict(
                "diverged",
                f"the median loss of the last {DIVERGENCE_WINDOW} updates is {middle:.3f}, "
                f"where the first was {guard.first_loss:.3f} (limit {limit:.3f})",
            )
        return GO_ON


COLLAPSED = Verdict("collapsed", "the loss fell to exactly 0.0")


def is_collapsed(loss: float, precision: Precision) -> bool:
    """Whether a loss over at least one token is the 0.0 that a 16-bit format fell to."""
    return loss == 0.0 and precision != "fp32"


def judge_held_out_loss(loss: float, precision: Precision) -> Verdict:
    """The verdict on a held-out pass."""
    if not math.isfinite(loss):
        return Verdict("not finite", f"the held-out loss is {loss}")
    if is_collapsed(loss, precision):
        return Verdict("collapsed", "the held-out loss is exactly 0.0")
    return GO_ON


def _not_finite(result: StepResult, loss_scale: LossScale | None) -> Verdict:
    if not math.isfinite(result.loss):
        # The loss is computed before it is scaled: a lower scale would give the same.
        return Verdict("not finite", f"the loss is {result.loss}")
    if loss_scale is None:
        return Verdict("not finite", f"the gradient norm is {result.grad_norm}")
    if loss_scale.num_skips_in_a_row >= MAX_SKIPS_IN_A_ROW:
        return Verdict(
            "overflow persisted",
            f"{loss_scale.num_skips_in_a_row} updates in a row overflowed, down to a loss "
            f"scale of {loss_scale.scale:g}",
        )
    return GO_ON
