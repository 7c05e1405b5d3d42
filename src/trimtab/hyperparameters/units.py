"""Sizes in bytes, read and written with their unit."""

from __future__ import annotations

import re
from typing import Final

SIZE_PATTERN: Final = r"^ *[0-9]+(\.[0-9]+)? *([kKmMgGtT][iI]?)?[bB] *$"
"""A number and a unit: `6GiB`, `512 MB`. Also the pattern in the JSON Schema."""

_SIZE: Final = re.compile(r" *(?P<number>[0-9]+(?:\.[0-9]+)?) *(?P<unit>[a-zA-Z]+) *")
_BYTES_OF: Final = {"b": 1} | {
    f"{letter}{infix}b": base**power
    for power, letter in enumerate("kmgt", start=1)
    for infix, base in (("", 1000), ("i", 1024))
}


def parse_bytes(size: str | int) -> int:
    """The number of bytes: `6GiB` is 6·1024³, `6GB` is 6·1000³, an int is bytes already.

    Raises ValueError where the text is not a number with a unit of bytes, or is not positive.
    """
    if isinstance(size, int):
        num_bytes = size
    else:
        match = _SIZE.fullmatch(size)
        if match is None or match["unit"].lower() not in _BYTES_OF:
            raise ValueError(f"{size!r} is not a size such as 6GiB, 500MB or 6000000000")
        whole, _, decimals = match["number"].partition(".")
        scale = 10 ** len(decimals)
        num_bytes = int(whole + decimals) * _BYTES_OF[match["unit"].lower()] // scale
    if num_bytes <= 0:
        raise ValueError(f"{size!r} is not a positive number of bytes")
    return num_bytes


def format_bytes(num_bytes: int) -> str:
    """The size in the largest binary unit that leaves at least 1: `6.0 GiB`, `512 B`."""
    value = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{num_bytes} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
