"""The held-out loss."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from trimtab.data.rows import MicroBatch
from trimtab.engine.loss import summed_loss
from trimtab.engine.precision import autocast
from trimtab.hyperparameters.config import Precision
from trimtab.models.adapters import Model


@dataclass(frozen=True, slots=True)
class Evaluation:
    """eval_loss: nats per trainable token over all held-out rows; seconds: what it took."""

    eval_loss: float
    num_tokens: int
    num_trainable_tokens: int
    seconds: float


@torch.no_grad()
def evaluate(
    model: Model,
    batches: Iterable[MicroBatch],
    *,
    precision: Precision,
    device: torch.device,
    on_tokens: Callable[[int], None] | None = None,
) -> Evaluation:
    """The loss over the batches, each token weighted alike, so their size does not matter.

    `on_tokens` is told the tokens of every batch as it is done, and may raise to stop. Raises
    ValueError without batches.
    """
    started = time.perf_counter()
    was_training = model.training
    model.eval()
    total_loss = torch.zeros((), dtype=torch.float64)
    num_tokens = num_trainable_tokens = 0
    try:
        for batch in batches:
            with autocast(precision, device):
                total_loss += summed_loss(model, batch.to(device)).double().cpu()
            num_tokens += batch.num_tokens
            num_trainable_tokens += batch.num_trainable_tokens
            if on_tokens is not None:
                on_tokens(batch.num_tokens)
    finally:
        model.train(was_training)
    if num_trainable_tokens == 0:
        raise ValueError("no held-out token to evaluate on")
    return Evaluation(
        eval_loss=float(total_loss) / num_trainable_tokens,
        num_tokens=num_tokens,
        num_trainable_tokens=num_trainable_tokens,
        seconds=time.perf_counter() - started,
    )
