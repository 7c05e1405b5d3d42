"""NaN and infinities in JSON, which has none of them.

They are written as the texts "NaN", "Infinity" and "-Infinity" and read back as floats, so that a
non-finite loss stays visible in the record. A text of exactly these letters is not kept as text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def as_text(value: Any) -> Any:
    """The value with every non-finite float in it, however deep, as its text."""
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case Mapping():
            return {name: as_text(item) for name, item in value.items()}
        case list() | tuple():
            return [as_text(item) for item in value]
        case _:
            return value


def from_text(value: Any) -> Any:
    """The value with every such text in it, however deep, as its float."""
    match value:
        case str():
            return _NON_FINITE.get(value, value)
        case Mapping():
            return {name: from_text(item) for name, item in value.items()}
        case list():
            return [from_text(item) for item in value]
        case _:
            return value
