"""Number formats of a run, and the loss scale that fp16 needs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trimtab.hyperparameters.config import Method, Precision

COMPUTE_DTYPES: Mapping[Precision, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


def weight_dtype(precision: Precision, method: Method) -> torch.dtype:
    """The dtype that the model's weights are loaded in.

    Trained weights are fp32 masters whatever the precision; weights that LoRA freezes take the
    compute dtype, since nothing is ever added to them.
    """
    return torch.float32 if method == "full" else COMPUTE_DTYPES[precision]


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The context in which forward passes run; it does nothing under fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=COMPUTE_DTYPES[precision])


@dataclass
class LossScale:
    """Dynamic loss scaling for fp16 (Mixed Precision Training, 2018, arXiv 1710.03740).

    The scale halves when a gradient overflows and doubles after `growth_interval` updates without
    an overflow. It is own code, not torch's GradScaler, because the guard decides between gradient
    and weights whether an update is applied, and because its state must be JSON.
    """

    scale: float = 2.0**16
    num_good_updates: int = 0
    num_skips_in_a_row: int = 0
    growth_interval: int = 2000

    def overflowed(self) -> None:
        self.scale /= 2.0
        self.num_good_updates = 0
        self.num_skips_in_a_row += 1

    def succeeded(self) -> None:
        self.num_skips_in_a_row = 0
        self.num_good_updates += 1
        if self.num_good_updates == self.growth_interval:
            self.scale *= 2.0
            self.num_good_updates = 0
