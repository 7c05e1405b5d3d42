"""How far a search looks on either side of where it starts."""

from __future__ import annotations

import math

from trimtab.hyperparameters.catalogue import catalogue

BRACKET = 3.0
"""The first step from the plan's learning rate: it is right within about that (`learning_rate`)."""
WIDTH = {"learning_rate": BRACKET**3, "weight_decay": BRACKET**2}
"""How far a range reaches on either side of its start, as a factor. Others reach 4×."""
OTHER_WIDTH = 4.0
UNBOUNDED = ("learning_rate",)
"""What is searched beyond the catalogue's range too: the best of a model or an optimizer may lie
there, and a start may be as far off as its range reaches."""
WHOLE = ("global_batch_size", "lora_r")
MOST = {"warmup_ratio": 0.9}
"""What is searched at most of a share, which is below 1."""


def range_around(name: str, start: float) -> tuple[float, float]:
    """Inside the catalogue's range where that holds the start, and inside what the hyperparameter
    can be; the catalogue's own around a start of 0, which no factor leaves."""
    declared = catalogue()[name].declaration.search
    assert declared is not None
    if start <= 0:
        return declared.low, declared.high
    width = WIDTH.get(name, OTHER_WIDTH)
    low, high = start / width, start * width
    if name not in UNBOUNDED and declared.low <= start <= declared.high:
        low, high = max(low, declared.low), min(high, declared.high)
    if name in WHOLE:
        low, high = math.ceil(low), math.floor(high)
    if name in MOST:
        high = max(start, min(high, MOST[name]))
    return low, high
