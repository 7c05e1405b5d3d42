"""How many positions are computed for a row: its tokens, and what pads it.

Under `longest` a row is computed to the length of the longest of its micro-batch. Of m rows drawn
from lengths with distribution F, the longest has the distribution F^m, so its mean follows from the
quantiles of the rows' lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

from trimtab.hyperparameters.config import Padding
from trimtab.planning.fact import Facts


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows are laid out in a micro-batch; packed rows have `padding` none."""

    padding: Padding
    max_length: int
    pad_to_multiple_of: int | None


@dataclass(frozen=True, slots=True)
class Positions:
    """Means over the examples. num_computed: by the layers; num_scored: by the output head."""

    num_computed: float
    num_scored: float


def padded_length(length: float, pad_to_multiple_of: int | None) -> int:
    """Columns of a padded micro-batch that holds `length` tokens a row."""
    multiple = pad_to_multiple_of or 1
    return math.ceil(length / multiple) * multiple


def positions_per_example(facts: Facts, layout: Layout, batch_size: int) -> Positions:
    """What an example of a micro-batch of `batch_size` rows costs, pad tokens included."""
    trained = facts.number("rows.num_trainable_tokens") / facts.number("rows.num_examples")
    if layout.padding == "none":
        return Positions(facts.number("rows.length_mean"), trained)
    if layout.padding == "longest":
        return Positions(_mean_longest(facts, batch_size, layout.pad_to_multiple_of), trained)
    return Positions(padded_length(layout.max_length, layout.pad_to_multiple_of), trained)


def _mean_longest(facts: Facts, batch_size: int, multiple: int | None) -> float:
    """The mean of the longest of `batch_size` rows."""
    quantiles = cast(list[float], facts.value("data.length_quantiles"))
    cut_at = facts.integer("rows.length_max")
    lengths = [(min(low, cut_at) + min(high, cut_at)) / 2 for low, high in pairwise(quantiles)]
    # Quantiles tell the spread of the rows before any was held out or cut; the mean is of the rest.
    scale = facts.number("rows.length_mean") * len(lengths) / sum(lengths)
    mean = 0.0
    for index, length in enumerate(lengths):
        share = ((index + 1) / len(lengths)) ** batch_size - (index / len(lengths)) ** batch_size
        scaled = min(length * scale, cut_at)
        mean += share * (scaled if multiple is None else padded_length(scaled, multiple))
    return mean
