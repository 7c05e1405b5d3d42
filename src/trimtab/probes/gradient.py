"""The gradient that a weight update would have, taken from the training step itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from trimtab.data.rows import MicroBatch
from trimtab.engine.precision import LossScale
from trimtab.probes.bench import Bench, finite_update


def mean_gradient(bench: Bench, batch: MicroBatch, loss_scale: LossScale | None) -> list[Tensor]:
    """By parameter, over the batch's trainable tokens, not clipped; empty where it overflowed.

    Nothing is updated.
    """
    taker = _GradientTaker(bench.optimizer.parameters)
    unclipped = replace(
        bench,
        settings=replace(bench.settings, max_grad_norm=0.0),
        optimizer=replace(bench.optimizer, optimizers=(taker,)),
    )
    finite_update(unclipped, [batch], learning_rate=0.0, loss_scale=loss_scale)
    return taker.gradients


class _GradientTaker(torch.optim.Optimizer):
    """An optimizer that updates nothing: it keeps the gradients of its step."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.0})
        self._parameters = parameters
        self.gradients: list[Tensor] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.gradients = [
            torch.zeros_like(each) if each.grad is None else each.grad.detach().clone()
            for each in self._parameters
        ]
