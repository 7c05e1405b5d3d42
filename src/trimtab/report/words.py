"""Numbers and values as a reader would write them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

MAX_ITEMS_SHOWN = 8


def value_text(value: Any) -> str:
    """Any value of a plan or an event on one line; long lists by their ends and their length."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case int():
            return f"{value:,}"
        case float():
            return float_text(value)
        case Mapping():
            return (
                ", ".join(f"{name}: {value_text(item)}" for name, item in value.items()) or "none"
            )
        case list() | tuple() if len(value) > MAX_ITEMS_SHOWN:
            return f"{value_text(value[0])} … {value_text(value[-1])} ({len(value):,} values)"
        case list() | tuple():
            return ", ".join(value_text(item) for item in value) or "none"
        case _:
            return str(value)


def float_text(value: float) -> str:
    """Four significant digits; `2e-4` for the small, `1,234,567` for the large."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    if abs(value) >= 0.01:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def seconds_text(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.3g} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def bytes_text(num_bytes: float) -> str:
    if num_bytes < 2**30:
        return f"{num_bytes / 2**20:.0f} MiB"
    return f"{num_bytes / 2**30:.2f} GiB"


def rate_text(per_second: float, unit: str) -> str:
    """`444 GFLOP/s`, `12.3 GB/s`: three digits in powers of a thousand."""
    for letter, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(per_second) >= scale:
            return f"{per_second / scale:.3g} {letter}{unit}"
    return f"{per_second:.3g} {unit}"


def quantity_text(value: Any, unit: str | None) -> str:
    """A value with its unit, in the words of that unit."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        match unit:
            case "bytes":
                return bytes_text(value)
            case "FLOP/s":
                return rate_text(value, "FLOP/s")
            case "bytes/s":
                return rate_text(value, "B/s")
            case "s" | "seconds":
                return seconds_text(value)
    return value_text(value) if unit is None else f"{value_text(value)} {unit}"


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,024 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def share_text(part: float, whole: float) -> str:
    """`26%`, `0.4%`; empty where there is no whole."""
    if whole == 0:
        return ""
    share = 100 * part / whole
    return f"{share:.1f}%" if 0 < share < 10 else f"{share:.0f}%"


def prose(text: str) -> Markup:
    """A sentence as HTML, escaped, with `names in backticks` as code."""
    parts = visible(text).split("`")
    if len(parts) % 2 == 0:
        return escape(visible(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if position % 2 else escape(part)
        for position, part in enumerate(parts)
    )


def visible(text: str) -> str:
    """The text with what cannot be seen, or would turn the text around it, as its code.

    Line ends and tabs stay, and so do the joiners that scripts and emoji are written with.
    """
    return "".join(_code(character) if _is_hidden(character) else character for character in text)


_DIRECTION_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def _is_hidden(character: str) -> bool:
    code = ord(character)
    is_control = code < 0x20 or 0x7F <= code < 0xA0
    is_half_a_pair = 0xD800 <= code <= 0xDFFF
    is_noncharacter = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return (
        (is_control and character not in "\n\t")
        or is_half_a_pair
        or is_noncharacter
        or character in _DIRECTION_CONTROLS
    )


def _code(character: str) -> str:
    return f"⟨U+{ord(character):04X}⟩"
