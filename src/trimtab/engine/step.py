"""Micro-batches in, one weight update out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from trimtab.data.rows import MicroBatch
from trimtab.engine.distributed import ALONE, Ranks
from trimtab.engine.loss import summed_loss
from trimtab.engine.noise import mean_gradient_norm
from trimtab.engine.optimizer import OptimizerSet
from trimtab.engine.precision import LossScale, autocast
from trimtab.hyperparameters.config import Precision
from trimtab.models.adapters import Model
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.models.sharding import whole


class OptimizerRanOutOfMemory(MemoryError):
    """Memory ran out while weights were being updated: some may have moved, others not."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one weight update came to.

    loss: nats per trainable token over all micro-batches of all ranks. grad_norm: before clipping.
    first_micro_batch_grad_norm: of the mean gradient over the first micro-batch's own trainable
    tokens; None where one micro-batch is the whole update, and where weights lie in shards.
    applied: False where the loss or a gradient was not finite, or the loss was not accepted; the
    weights and the optimizer's state are then exactly what they were.
    """

    loss: float
    grad_norm: float
    num_tokens: int
    num_trainable_tokens: int
    applied: bool
    first_micro_batch_grad_norm: float | None = None

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


def any_loss(loss: float) -> bool:
    return True


def training_step(
    model: Model,
    micro_batches: Sequence[MicroBatch],
    optimizer: OptimizerSet,
    *,
    learning_rate: float,
    max_grad_norm: float,
    precision: Precision,
    device: torch.device,
    loss_scale: LossScale | None = None,
    accepts_loss: Callable[[float], bool] = any_loss,
    ranks: Ranks = ALONE,
) -> StepResult:
    """One weight update from the summed gradients of the micro-batches of all ranks.

    The loss is divided by the trainable tokens of all micro-batches together, so how the batch is
    split, over time or over ranks, does not change the update; every rank returns the same.
    `loss_scale` (fp16) is applied before and taken out after the backward passes, and moves with
    the outcome. `max_grad_norm` 0 does not clip. `accepts_loss` is
    asked of a finite loss before the weights move.

    Raises OptimizerRanOutOfMemory where the weights may have moved in part; memory that runs out
    earlier passes through as torch tells it, and leaves weights and optimizer state as they were.
    """
    num_tokens, num_trainable_tokens = map(
        round,
        ranks.sum(
            sum(batch.num_tokens for batch in micro_batches),
            sum(batch.num_trainable_tokens for batch in micro_batches),
        ),
    )
    scale = 1.0 if loss_scale is None else loss_scale.scale
    total_loss = torch.zeros((), device=device)
    first_norm: torch.Tensor | None = None
    with ranks.failing_together():
        for index, batch in enumerate(micro_batches):
            with autocast(precision, device):
                loss = summed_loss(model, batch.to(device))
            (loss * (scale / num_trainable_tokens)).backward()
            total_loss += loss.detach()
            share = batch.num_trainable_tokens / num_trainable_tokens
            if index == 0 and 0 < share < 1 and ranks.is_first and ranks.holds_replica:
                first_norm = mean_gradient_norm(optimizer.parameters, scale * share)
    ranks.sum_gradients(optimizer.parameters)
    grad_norm = float(_unscaled_clipped_norm(optimizer.parameters, scale, max_grad_norm))
    mean_loss = ranks.sum(float(total_loss))[0] / num_trainable_tokens
    is_finite = math.isfinite(mean_loss) and math.isfinite(grad_norm)
    applied = is_finite and accepts_loss(mean_loss)
    if applied:
        _move_weights(optimizer, learning_rate, ranks)
    optimizer.zero_grad()
    if loss_scale is not None:
        if not is_finite:
            loss_scale.overflowed()
        elif applied:
            loss_scale.succeeded()
    return StepResult(
        loss=mean_loss,
        grad_norm=grad_norm,
        num_tokens=num_tokens,
        num_trainable_tokens=num_trainable_tokens,
        applied=applied,
        first_micro_batch_grad_norm=None if first_norm is None else float(first_norm),
    )


def _move_weights(optimizer: OptimizerSet, learning_rate: float, ranks: Ranks) -> None:
    try:
        with ranks.failing_together():
            optimizer.step(learning_rate)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OptimizerRanOutOfMemory(str(error)) from error
        raise


def _unscaled_clipped_norm(
    parameters: Sequence[nn.Parameter], scale: float, max_grad_norm: float
) -> torch.Tensor:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if scale != 1.0:
        torch._foreach_mul_(gradients, 1.0 / scale)
    norm = whole(nn.utils.get_total_norm(gradients))
    if max_grad_norm > 0:
        nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, norm)
    return norm
