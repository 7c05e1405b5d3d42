"""Root mean square norms with a backward pass of their own.

transformers writes the norm in ten operations, each with a gradient and most of them in fp32; here
the input is kept as it came, beside one number a position, and the gradient is written down.

Shapes: N positions, H features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_NUM_CHECKED_POSITIONS = 8
_RELATIVE_TOLERANCE = 1e-5


class _RootMeanSquareNorm(torch.autograd.Function):
    """weight · (x ÷ √(mean x² + epsilon)), rounded to x's dtype before the weight, as in llama."""

    @staticmethod
    def forward(ctx: Any, x_NH: Tensor, weight_H: Tensor, epsilon: float) -> Tensor:
        wide_NH = x_NH.to(torch.float32, copy=True)
        inverse_N1 = torch.linalg.vector_norm(wide_NH, dim=-1, keepdim=True)
        inverse_N1.square_().div_(x_NH.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x_NH, weight_H, inverse_N1)
        return wide_NH.mul_(inverse_N1).to(x_NH.dtype).mul_(weight_H)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_NH, weight_H, inverse_N1 = ctx.saved_tensors
        gradient_NH = gradients[0].float()
        needs_x, needs_weight, _ = ctx.needs_input_grad
        normed_NH = x_NH.to(torch.float32, copy=True).mul_(inverse_N1)
        products_NH = gradient_NH * normed_NH
        weight_gradient_H = products_NH.sum(0).to(weight_H.dtype) if needs_weight else None
        if not needs_x:
            return None, weight_gradient_H, None
        wide_H = weight_H.float()
        shares_N1 = torch.mv(products_NH, wide_H).div_(x_NH.shape[-1]).unsqueeze(-1)
        x_gradient_NH = torch.mul(gradient_NH, wide_H, out=products_NH)
        x_gradient_NH.addcmul_(normed_NH, shares_N1, value=-1.0).mul_(inverse_N1)
        return x_gradient_NH.to(x_NH.dtype), weight_gradient_H, None


def root_mean_square_norm(x: Tensor, weight_H: Tensor, epsilon: float) -> Tensor:
    """The norm over the last dimension, in x's dtype, 32 bits or fewer; any leading shape."""
    normed: Tensor = _RootMeanSquareNorm.apply(  # type: ignore[no-untyped-call]
        x.flatten(0, -2), weight_H, epsilon
    )
    return normed.view(x.shape)


def _faster(kind: type[nn.Module]) -> type[nn.Module]:
    """A class of the same name whose forward pass is `root_mean_square_norm`."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if x.dtype != self.weight.dtype or x.dtype == torch.float64 or x.dim() < 2:
            plain: Tensor = kind.forward(self, x)
            return plain
        return root_mean_square_norm(x, self.weight, self.variance_epsilon)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def take_faster_norms(model: nn.Module) -> None:
    """Let the model's norms that are llama's take the faster pass; names and weights stay.

    Which ones are is found by asking: a module of each kind normalises random numbers, and must
    give what `root_mean_square_norm` gives.
    """
    norms = [module for module in model.modules() if _looks_like_one(module)]
    examples = {type(module): module for module in norms}
    for kind, example in examples.items():
        if _agrees(example):
            faster = _faster(kind)
            for module in norms:
                if type(module) is kind:
                    module.__class__ = faster


def _looks_like_one(module: nn.Module) -> bool:
    has_epsilon = isinstance(vars(module).get("variance_epsilon"), float)
    return has_epsilon and {name for name, _ in module.named_parameters()} == {"weight"}


@torch.no_grad()
def _agrees(module: Any) -> bool:
    """Whether it is the same norm, to fp32's rounding, with other weights than it has."""
    weight_H: Tensor = module.weight
    if weight_H.dim() != 1 or weight_H.dtype == torch.float64:
        return False
    kept = weight_H.data
    generator = torch.Generator().manual_seed(0)
    x_NH = torch.randn(_NUM_CHECKED_POSITIONS, len(kept), generator=generator).to(kept.device)
    try:
        weight_H.data = torch.randn(len(kept), generator=generator).to(kept.device)
        expected, found = (
            module(x_NH),
            root_mean_square_norm(x_NH, weight_H, module.variance_epsilon),
        )
    finally:
        weight_H.data = kept
    return expected.shape == found.shape and torch.allclose(
        expected, found, rtol=_RELATIVE_TOLERANCE, atol=_RELATIVE_TOLERANCE
    )
