"""How much memory a process holds now and held at most, measured piece by piece."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import torch

from trimtab.engine.memory import give_back_freed_memory, high_water_mark_bytes

_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What Linux takes for: begin the peak resident set anew (proc(5), clear_refs)."""


def can_begin_peak(device: torch.device) -> bool:
    """Whether `begin_peak` can begin the peak of a process such as this one anew."""
    return device.type == "cuda" or (
        os.access(_CLEAR_REFS, os.W_OK) and high_water_mark_bytes() is not None
    )


def held_bytes(device: torch.device) -> int:
    """What cannot be given back now of this process's resident set, or of what torch has reserved
    on a CUDA device."""
    give_back_freed_memory(device)
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    return int(psutil.Process().memory_info().rss)


def begin_peak(device: torch.device) -> bool:
    """Give back what is free and begin the peak anew; False where the system cannot do that.

    Then `peak_memory_bytes` goes on from the peak of everything before.
    """
    give_back_freed_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return high_water_mark_bytes() is not None
