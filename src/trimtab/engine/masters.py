"""fp32 masters of trained weights that the model computes with in 16 bits.

Mixed Precision Training (2018, arXiv 1710.03740): an update is often smaller than half the distance
between two numbers of 16 bits, so weights are moved in fp32, and rounded for the next forward pass.
The model holds the rounded ones: nothing is cast in a forward pass, and activations take half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from trimtab.hyperparameters.config import Method, Precision


def has_masters(precision: Precision, method: Method) -> bool:
    """Whether trained weights are held in 16 bits beside masters.

    Adapters are small and stay fp32 in the model; fp16 keeps fp32 weights under autocast, since its
    gradients are only sound after the loss scale is taken out.
    """
    return method == "full" and precision == "bf16"


def take_masters(
    weights: Mapping[str, nn.Parameter], dtype: torch.dtype
) -> tuple[dict[str, nn.Parameter], Callable[[], None]]:
    """Hold these fp32 parameters of a model in `dtype` from now on, beside fp32 masters.

    Returns the masters by the same names, and what rounds them into the model's weights. Each
    gradient that a backward pass leaves is added to its master's, in fp32, and let go.
    """
    masters = {}
    for name, weight in weights.items():
        assert weight.dtype == torch.float32, f"{name} is {weight.dtype}, not a model's as loaded"
        masters[name] = nn.Parameter(weight.data)
        weight.data = weight.data.to(dtype)
        weight.register_post_accumulate_grad_hook(_handing_its_gradient_to(masters[name]))

    def publish() -> None:
        # Looked up each time: a list that is kept would keep the memory of a job that is let go.
        rounded = [weight.data for weight in weights.values()]
        exact = [master.data for master in masters.values()]
        torch._foreach_copy_(rounded, exact)

    return masters, publish


def _handing_its_gradient_to(master: nn.Parameter) -> Callable[[torch.Tensor], None]:
    def hand_over(weight: torch.Tensor) -> None:
        # Taken off first: where memory runs out below, no later update adds to it.
        gradient, weight.grad = weight.grad, None
        assert gradient is not None
        if master.grad is None:
            master.grad = gradient.float()
        else:
            master.grad.add_(gradient)

    return hand_over
