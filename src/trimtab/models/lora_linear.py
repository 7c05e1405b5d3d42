"""A linear module under its adapter as one operation.

Shapes: N positions, I inputs, O outputs, R rank.

peft casts the input of every adapted module to the adapter's fp32 and, under autocast, back again,
scales and adds in passes of their own, and keeps what each of these steps saw for the backward
pass. Here adapters are cast instead, which are small, and the adapter's product is added in place.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from peft.tuners import lora
from torch import Tensor, nn

from trimtab.models.compute_dtype import compute_dtype


class _AdaptedLinear(torch.autograd.Function):
    """x Wᵀ + bias + s · (dropped Aᵀ) Bᵀ, for a frozen W and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NI: Tensor,
        dropped_NI: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        a_RI: Tensor,
        b_OR: Tensor,
        scaling: float,
    ) -> Tensor:
        dtype = weight_OI.dtype
        down_NR = dropped_NI @ a_RI.to(dtype).t()
        out_NO = nn.functional.linear(x_NI, weight_OI, bias_O)
        out_NO.addmm_(down_NR, b_OR.to(dtype).t(), alpha=scaling)
        ctx.save_for_backward(dropped_NI, down_NR, weight_OI, a_RI, b_OR)
        ctx.scaling = scaling
        ctx.is_dropped = dropped_NI is not x_NI
        return out_NO

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_NO,) = gradients
        dropped_NI, down_NR, weight_OI, a_RI, b_OR = ctx.saved_tensors
        dtype = weight_OI.dtype
        up_NR = (gradient_NO @ b_OR.to(dtype)).mul_(ctx.scaling)
        a_gradient_RI = (up_NR.t() @ dropped_NI).to(a_RI.dtype)
        b_gradient_OR = (gradient_NO.t() @ down_NR).to(b_OR.dtype).mul_(ctx.scaling)
        x_gradient_NI = dropped_gradient_NI = None
        needs_x, needs_dropped, *_ = ctx.needs_input_grad
        if needs_x:
            x_gradient_NI = gradient_NO @ weight_OI
        if needs_dropped and ctx.is_dropped:
            dropped_gradient_NI = up_NR @ a_RI.to(dtype)
        elif x_gradient_NI is not None:
            x_gradient_NI.addmm_(up_NR, a_RI.to(dtype))
        return (
            x_gradient_NI,
            dropped_gradient_NI,
            None,
            None,
            a_gradient_RI,
            b_gradient_OR,
            None,
        )


class AdaptedLinear(lora.Linear):
    """peft's module with a faster forward pass, where one adapter is in force on an nn.Linear."""

    def forward(self, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        base = self.get_base_layer()
        dtype = compute_dtype(x)
        if (
            self.disable_adapters
            or self.merged
            or len(self.active_adapters) != 1
            or base.weight.dtype != dtype
            or base.weight.requires_grad
        ):
            out: Tensor = super().forward(x, *arguments, **named)
            return out
        (adapter,) = self.active_adapters
        x_NI = x.to(dtype).flatten(0, -2)
        dropout = self.lora_dropout[adapter]
        dropped_NI = x_NI if isinstance(dropout, nn.Identity) else dropout(x_NI)
        with torch.autocast(x.device.type, enabled=False):
            out_NO: Tensor = _AdaptedLinear.apply(  # type: ignore[no-untyped-call]
                x_NI,
                dropped_NI,
                base.weight,
                base.bias,
                self.lora_A[adapter].weight,
                self.lora_B[adapter].weight,
                self.scaling[adapter],
            )
        return out_NO.view(*x.shape[:-1], -1)


def fuse_adapted_linears(model: PeftModel) -> None:
    """Let the modules of an adapted model take the faster pass; its state dict stays the same."""
    for module in model.modules():
        if type(module) is lora.Linear and isinstance(module.get_base_layer(), nn.Linear):
            module.__class__ = AdaptedLinear
