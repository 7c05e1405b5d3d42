"""Pictures in characters."""

from __future__ import annotations

from collections.abc import Sequence

HEIGHTS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 40


def sparkline(values: Sequence[float], width: int = CURVE_WIDTH) -> str:
    """The values as a row of bars, at most `width` of them, from 0 to the largest."""
    top = max(values)
    num_bars = min(width, len(values))
    if top <= 0:
        return HEIGHTS[0] * num_bars
    chosen = [values[round(i * (len(values) - 1) / max(1, num_bars - 1))] for i in range(num_bars)]
    return "".join(HEIGHTS[round(value / top * (len(HEIGHTS) - 1))] for value in chosen)


def bar(value: float, full: float, width: int) -> str:
    """A line of blocks from 0, `width` of them at `full`; what is over that ends in an arrow."""
    if value > full:
        return "█" * (width - 1) + "▶"
    return "█" * round(width * value / full)
