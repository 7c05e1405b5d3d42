"""The learning rate at which an update begins to do harm, at the run's own configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from trimtab.data.rows import MicroBatch
from trimtab.engine.loss import summed_loss
from trimtab.engine.precision import LossScale, autocast
from trimtab.probes.bench import (
    Bench,
    finite_update,
    first_loss_scale,
    left_as_it_was,
    weights_put_back,
)

HARM_SHARE = 0.05
"""An update does harm where the loss on its own rows is then this share over the first one.

Less than that is rounding: an adapter that has hardly moved leaves the loss where it was, a little
above or below.
"""


@dataclass(frozen=True, slots=True)
class RateOutcome:
    """The loss, in nats a trainable token, on the same rows after an update at `learning_rate`."""

    learning_rate: float
    loss: float
    diverged: bool


def range_outcomes(
    bench: Bench, micro_batches: Sequence[MicroBatch], rates: Sequence[float]
) -> Iterator[RateOutcome]:
    """One update at each of the rising rates, on the same rows, from where the last one led.

    Ends at the first rate after which the loss is clearly over the first, or not finite. The
    rates are small next to the last, so what is seen after a rate is due to that rate; it is an
    upper bound for it alone (Cyclical Learning Rates for Training Neural Networks, 2017, arXiv
    1506.01186). Dropout draws the same each time.
    """
    with left_as_it_was(bench), weights_put_back(bench):
        loss_scale = first_loss_scale(bench)
        start_loss = math.inf
        for index, rate in enumerate(rates):
            loss, is_applied = _update(bench, micro_batches, rate, loss_scale)
            if index == 0:
                start_loss = loss
            else:
                outcome = _outcome(rates[index - 1], loss, start_loss)
                yield outcome
                if outcome.diverged:
                    return
            if not is_applied:
                yield RateOutcome(rate, math.nan, diverged=True)
                return
        yield _outcome(rates[-1], _loss(bench, micro_batches), start_loss)


def _outcome(rate: float, loss: float, start_loss: float) -> RateOutcome:
    return RateOutcome(rate, loss, diverged=not loss <= (1 + HARM_SHARE) * start_loss)


def _update(
    bench: Bench, micro_batches: Sequence[MicroBatch], rate: float, loss_scale: LossScale | None
) -> tuple[float, bool]:
    torch.manual_seed(bench.settings.seed)
    result, _ = finite_update(bench, micro_batches, learning_rate=rate, loss_scale=loss_scale)
    return result.loss, result.applied


@torch.no_grad()
def _loss(bench: Bench, micro_batches: Sequence[MicroBatch]) -> float:
    torch.manual_seed(bench.settings.seed)
    total = 0.0
    for batch in micro_batches:
        with autocast(bench.settings.precision, bench.device):
            total += float(summed_loss(bench.model, batch.to(bench.device)))
    return total / sum(batch.num_trainable_tokens for batch in micro_batches)
