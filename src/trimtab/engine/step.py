"""Micro-batches in, one weight update out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from trimtab.data.rows import MicroBatch
from trimtab.engine.loss import summed_loss
from trimtab.engine.noise import mean_gradient_norm
from trimtab.engine.optimizer import OptimizerSet
from trimtab.engine.precision import LossScale, autocast
from trimtab.hyperparameters.config import Precision
from trimtab.models.adapters import Model


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one weight update came to.

    loss: nats per trainable token over all micro-batches. grad_norm: before clipping.
    first_micro_batch_grad_norm: of the mean gradient over the first micro-batch's own trainable
    tokens; None where one micro-batch is the whole update.
    applied: False where the loss or a gradient was not finite; the weights and the optimizer's
    state are then exactly what they were.
    """

    loss: float
    grad_norm: float
    num_tokens: int
    num_trainable_tokens: int
    applied: bool
    first_micro_batch_grad_norm: float | None = None


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
) -> StepResult:
    """One weight update from the micro-batches' summed gradients.

    The loss is divided by the trainable tokens of all micro-batches together, so how the batch is
    split does not change the update. `loss_scale` (fp16) is applied before and taken out after the
    backward passes, and moves with the outcome. `max_grad_norm` 0 does not clip.
    """
    num_trainable_tokens = sum(batch.num_trainable_tokens for batch in micro_batches)
    scale = 1.0 if loss_scale is None else loss_scale.scale
    total_loss = torch.zeros((), device=device)
    first_norm: torch.Tensor | None = None
    for batch in micro_batches:
        with autocast(precision, device):
            loss = summed_loss(model, batch.to(device))
        (loss * (scale / num_trainable_tokens)).backward()
        total_loss += loss.detach()
        if first_norm is None and len(micro_batches) > 1:
            share = batch.num_trainable_tokens / num_trainable_tokens
            first_norm = mean_gradient_norm(optimizer.parameters, scale * share)
    grad_norm = float(_unscaled_clipped_norm(optimizer.parameters, scale, max_grad_norm))
    mean_loss = float(total_loss) / num_trainable_tokens
    applied = math.isfinite(mean_loss) and math.isfinite(grad_norm)
    if applied:
        optimizer.step(learning_rate)
    optimizer.zero_grad()
    if loss_scale is not None:
        if applied:
            loss_scale.succeeded()
        else:
            loss_scale.overflowed()
    return StepResult(
        loss=mean_loss,
        grad_norm=grad_norm,
        num_tokens=sum(batch.num_tokens for batch in micro_batches),
        num_trainable_tokens=num_trainable_tokens,
        applied=applied,
        first_micro_batch_grad_norm=None if first_norm is None else float(first_norm),
    )


def _unscaled_clipped_norm(
    parameters: Sequence[nn.Parameter], scale: float, max_grad_norm: float
) -> torch.Tensor:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if scale != 1.0:
        torch._foreach_mul_(gradients, 1.0 / scale)
    norm = nn.utils.get_total_norm(gradients)
    if max_grad_norm > 0:
        nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, norm)
    return norm
