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
_PRESENT_BIT = np.uint64(63)
"""Of a page's entry (Linux, admin-guide/mm/pagemap)."""


def are_pages_told() -> bool:
    """Whether the system tells which pages are in memory."""
    return os.access(_PAGEMAP, os.R_OK)


def resident_file_pages() -> npt.NDArray[np.uint64]:
    """Addresses of the pages that are in memory, uint64 [N]. Raises OSError where none is told."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    found = [np.zeros(0, dtype=np.uint64)]
    with _PAGEMAP.open("rb", buffering=0) as pagemap:
        for start, end in _file_ranges():
            pagemap.seek(start // page_bytes * 8)
            entries = pagemap.read((end - start) // page_bytes * 8)
            present_bits = np.frombuffer(entries, dtype=np.uint64) >> _PRESENT_BIT
            places = np.flatnonzero(present_bits).astype(np.uint64)
            found.append(np.uint64(start) + places * np.uint64(page_bytes))
    return np.concatenate(found)


def touch(pages: npt.NDArray[np.uint64]) -> None:
    """Read a byte of each, so that the process has it in memory."""
    for address in pages.tolist():
        _ = ctypes.c_char.from_address(address).value


def _file_ranges() -> list[tuple[int, int]]:
    """Of private readable mappings of files: as libraries are mapped, and devices are not."""
    ranges = []
    # A file's name may hold anything but a line's end.
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").split("\n"):
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[1][0] == "r" and fields[1][3] == "p" and fields[4] != "0":
            start, end = (int(each, 16) for each in fields[0].split("-"))
            ranges.append((start, end))
    return ranges
