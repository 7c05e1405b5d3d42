"""Running out of memory, as torch tells it on each device."""

from __future__ import annotations

from typing import Final

import torch

CPU_ALLOCATION_FAILED: Final = "can't allocate memory"
"""What torch's CPU allocator says; it raises a plain RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that the device, or the machine, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and CPU_ALLOCATION_FAILED in str(error)
    )
