"""The held-out rows that a search sees, and those that judge what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from trimtab.errors import DataError

Number = TypeVar("Number", int, float)
HALVES_STREAM = 2**32 - 2
MIN_ROWS = 16


@dataclass(frozen=True, slots=True)
class Halves:
    """Places of rows among the held-out ones: the search's half, and the one it never sees."""

    search: tuple[int, ...]
    test: tuple[int, ...]


def halves(num_rows: int, seed: int) -> Halves:
    """Drawn by the seed. Raises DataError for fewer than 16 rows."""
    if num_rows < MIN_ROWS:
        raise DataError(
            f"{num_rows} rows are held out, and a search needs at least {MIN_ROWS}: one half to "
            "search on and one that it never sees, to judge what it found.",
            hint="Set eval_dataset to a larger fraction or to a dataset of its own.",
        )
    order = np.random.Generator(np.random.PCG64([seed, HALVES_STREAM])).permutation(num_rows)
    middle = num_rows // 2
    return Halves(tuple(sorted(order[:middle].tolist())), tuple(sorted(order[middle:].tolist())))


def at(values: Sequence[Number], places: Sequence[int]) -> list[Number]:
    """The values at these places."""
    return [values[place] for place in places]
