"""What a measurement depends on, as digests by part, so that it is known when it still holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

Part = Literal["model", "data", "method", "settings", "device", "allocator", "libraries"]
Fingerprint = Mapping[str, str]
"""A digest of each `Part` that a measurement depends on; parts that it does not are left out."""


def digest(value: Any) -> str:
    """The same for equal JSON values, and for no others."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def changed_parts(earlier: Fingerprint, now: Fingerprint) -> tuple[Part, ...]:
    """The parts that differ or that only one of the two has, in a fixed order."""
    order: tuple[Part, ...] = get_args(Part)
    return tuple(part for part in order if earlier.get(part) != now.get(part))
