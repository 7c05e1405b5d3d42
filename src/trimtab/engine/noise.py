"""What one micro-batch's own gradient is, while an update is being summed up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def mean_gradient_norm(parameters: Sequence[nn.Parameter], factor: float) -> torch.Tensor:
    """The norm of the gradients that are there, divided by `factor`; nothing is changed.

    `factor` is what the gradients carry over a mean: a micro-batch's share of the update's
    trainable tokens, times the loss scale. Scalar, on the gradients' device.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients) / factor
