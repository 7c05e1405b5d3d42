"""How much memory the process has taken at its peak, and giving back what it no longer uses."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def peak_memory_bytes(device: torch.device) -> int:
    """The peak reserved memory of a CUDA device, or this process's peak resident set elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    mark = high_water_mark_bytes()
    if mark is not None:
        return mark
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def give_back_freed_memory(device: torch.device) -> None:
    """Hand to the system, or to the device, what allocators keep of what was freed.

    Whatever is allocated next would else come on top of it.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        # Only glibc has it.
        return
    trim(0)


def high_water_mark_bytes() -> int | None:
    """This process's peak resident set, where Linux tells it.

    What getrusage tells counts the peak of the process that this one was started by (Linux:
    subprocess shares its memory until the new program runs).
    """
    try:
        status = _STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024
    return None
