"""Tensors out of the pages of their files, into memory that the process has to itself."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

_MAPS = Path("/proc/self/maps")


def take_out_of_files(model: nn.Module) -> None:
    """Copy weights that are pages of a file; the others stay as they are.

    Weights that are loaded in the dtype of their file are its pages. The system takes such pages
    away from a process whenever it likes and reads them again, so that neither the memory nor the
    seconds of an update stay the same; and a file that is truncated meanwhile kills the process.
    Each page is let go once it is copied: at no time are there two copies of all weights.
    Does nothing where the system does not tell which pages are a file's.
    """
    mapped = mapped_ranges()
    for tensor in (*model.parameters(), *model.buffers()):
        data = tensor.data
        own = in_own_memory(data, mapped)
        if own is not data:
            tensor.data = own


def in_own_memory(tensor: Tensor, mapped: Sequence[tuple[int, int]]) -> Tensor:
    """A copy of a tensor that lies in these ranges, whose pages are let go; else the tensor."""
    address = tensor.data_ptr()
    if not any(start <= address < end for start, end in mapped):
        return tensor
    copy = tensor.clone()
    _let_go(address, tensor.nbytes)
    return copy


def mapped_ranges() -> list[tuple[int, int]]:
    """The addresses [start, end) at which safetensors files are mapped."""
    if sys.platform != "linux":
        return []
    ranges = []
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        addresses, *_, path = line.split(maxsplit=5)
        if path.endswith(".safetensors"):
            start, end = addresses.split("-")
            ranges.append((int(start, 16), int(end, 16)))
    return ranges


def _let_go(address: int, num_bytes: int) -> None:
    """Drop the whole pages in between; whoever looks at them again gets them from the file."""
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + num_bytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
    if length > 0:
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
