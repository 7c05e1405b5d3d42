"""The pages of files, most of them libraries, that a process has in its memory.

A forked process has none of them at first: it would count as its own each page that it comes back
to, which a process that imported the libraries itself has counted before it measures.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

_MAPS = Path("/proc/self/maps")
_PAGEMAP = Path("/proc/self/pagemap")
_IS_PRESENT = np.uint64(63)
"""The bit of a page's entry (Linux, admin-guide/mm/pagemap)."""


def resident_file_pages() -> npt.NDArray[np.uint64]:
    """Addresses of the pages that are in memory, uint64 [N]; none where Linux does not tell."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    found = [np.zeros(0, dtype=np.uint64)]
    try:
        with _PAGEMAP.open("rb", buffering=0) as pagemap:
            for start, end in _readable_file_ranges():
                pagemap.seek(start // page_bytes * 8)
                entries = pagemap.read((end - start) // page_bytes * 8)
                is_present = np.frombuffer(entries, dtype=np.uint64) >> _IS_PRESENT
                places = np.flatnonzero(is_present).astype(np.uint64)
                found.append(np.uint64(start) + places * np.uint64(page_bytes))
    except OSError:
        return found[0]
    return np.concatenate(found)


def touch(pages: npt.NDArray[np.uint64]) -> None:
    """Read a byte of each, so that the process has it in memory."""
    for address in pages.tolist():
        _ = ctypes.c_char.from_address(address).value


def _readable_file_ranges() -> list[tuple[int, int]]:
    ranges = []
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        span, permissions, _, _, inode, *_ = line.split()
        if inode != "0" and permissions.startswith("r"):
            start, end = (int(each, 16) for each in span.split("-"))
            ranges.append((start, end))
    return ranges
