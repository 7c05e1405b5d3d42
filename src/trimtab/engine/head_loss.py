"""Cross-entropy straight from hidden states and the output head, one block of positions at a time.

Logits of a vocabulary outweigh everything else in a small model. Here they exist in the compute
dtype alone, for a block of positions, and turn into their own gradient where they lie; fp32 copies
are of a few rows. Gradients of the loss are made in the forward pass, as in Liger Kernel (2024,
arXiv 2410.10989), and only scaled in the backward pass.

Shapes: M positions that are trained on, P of one block, H features, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trimtab.models.compute_dtype import compute_dtype
from trimtab.planning.rules.memory import LOGITS_BLOCK_ELEMENTS

CHUNK_ELEMENTS = {"cpu": 2**19, "cuda": 2**25}
"""Logits that are in fp32 at a time: on a CPU what stays in its second cache."""


def summed_head_loss(head: nn.Linear, hidden_MH: Tensor, targets_M: Tensor) -> Tensor:
    """The negative log-likelihood in nats, summed over the positions; fp32 scalar.

    Not for fp16: gradients are made before the loss is scaled, so small ones would be lost.
    """
    if not torch.is_grad_enabled():
        # An autograd function is told of no such thing, and would make them all the same.
        return head_losses(head, hidden_MH, targets_M).sum()
    dtype = compute_dtype(hidden_MH)
    with torch.autocast(hidden_MH.device.type, enabled=False):
        loss: Tensor = _HeadLoss.apply(  # type: ignore[no-untyped-call]
            hidden_MH, head.weight, head.bias, targets_M, dtype
        )
    return loss


@torch.no_grad()
def head_losses(head: nn.Linear, hidden_MH: Tensor, targets_M: Tensor) -> Tensor:
    """The negative log-likelihood in nats at each position; fp32 [M], without gradients."""
    dtype = compute_dtype(hidden_MH)
    weight_VH, bias_V = _in_dtype(head.weight, head.bias, dtype)
    losses_M = torch.empty(len(targets_M), dtype=torch.float32, device=hidden_MH.device)
    with torch.autocast(hidden_MH.device.type, enabled=False):
        for block in _slices(len(targets_M), LOGITS_BLOCK_ELEMENTS // len(weight_VH)):
            logits_PV = nn.functional.linear(hidden_MH[block].to(dtype), weight_VH, bias_V)
            losses_M[block] = _block_losses(logits_PV, targets_M[block], becomes_gradient=False)
    return losses_M


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_MH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_M: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        needs_hidden, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        needs_any = needs_hidden or needs_weight or needs_bias
        head_VH, head_bias_V = _in_dtype(weight_VH, bias_V, dtype)
        blocks = _slices(len(targets_M), LOGITS_BLOCK_ELEMENTS // len(head_VH))
        losses_M = torch.empty(len(targets_M), dtype=torch.float32, device=hidden_MH.device)
        hidden_gradient_MH = torch.empty_like(hidden_MH) if needs_hidden else None
        weight_gradient_VH, bias_gradient_V = None, None
        for block in blocks:
            hidden_PH = hidden_MH[block].to(dtype)
            logits_PV = nn.functional.linear(hidden_PH, head_VH, head_bias_V)
            losses_M[block] = _block_losses(logits_PV, targets_M[block], needs_any)
            if hidden_gradient_MH is not None:
                hidden_gradient_MH[block] = logits_PV @ head_VH
            if needs_weight:
                weight_gradient_VH = _plus_product(
                    weight_gradient_VH, logits_PV.t(), hidden_PH, len(blocks)
                )
            if needs_bias and bias_V is not None:
                found_V = logits_PV.sum(0, dtype=torch.float32)
                bias_gradient_V = found_V if bias_gradient_V is None else bias_gradient_V + found_V
            # Else they stand beside the next block's.
            del logits_PV
        ctx.gradients = hidden_gradient_MH, weight_gradient_VH, bias_gradient_V
        ctx.dtypes = hidden_MH.dtype, weight_VH.dtype, None if bias_V is None else bias_V.dtype
        return losses_M.sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [
            None if gradient is None else gradient.mul_(gradients[0]).to(dtype)
            for gradient, dtype in zip(ctx.gradients, ctx.dtypes, strict=True)
        ]
        ctx.gradients = None
        return *scaled, None, None


def _plus_product(
    sum_so_far: Tensor | None, left: Tensor, right: Tensor, num_blocks: int
) -> Tensor:
    """One block has nothing to add up; several are added in fp32."""
    if sum_so_far is None:
        found = left @ right
        return found if num_blocks == 1 else found.to(torch.float32)
    if sum_so_far.dtype == left.dtype:
        return sum_so_far.addmm_(left, right)
    return sum_so_far.add_(left @ right)


def _in_dtype(
    weight_VH: Tensor, bias_V: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    return weight_VH.to(dtype), None if bias_V is None else bias_V.to(dtype)


def _block_losses(logits_PV: Tensor, targets_P: Tensor, becomes_gradient: bool) -> Tensor:
    """Losses [P]; where asked, the logits become the gradient of their losses' sum."""
    num_elements = CHUNK_ELEMENTS.get(logits_PV.device.type, CHUNK_ELEMENTS["cuda"])
    losses = []
    for chunk in _slices(len(logits_PV), num_elements // logits_PV.shape[1]):
        log_probabilities = torch.log_softmax(logits_PV[chunk].float(), dim=-1)
        targets = targets_P[chunk, None]
        losses.append(-log_probabilities.gather(1, targets)[:, 0])
        if becomes_gradient:
            probabilities = log_probabilities.exp_()
            minus_one = probabilities.new_full((), -1.0).expand_as(targets)
            logits_PV[chunk] = probabilities.scatter_add_(1, targets, minus_one)
    return torch.cat(losses)


def _slices(length: int, size: int) -> list[slice]:
    step = max(1, size)
    return [slice(start, start + step) for start in range(0, length, step)]
