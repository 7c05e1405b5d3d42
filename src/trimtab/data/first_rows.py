"""The rows of a long file that a run's first updates see, made once and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np

from trimtab.data.batches import Batching, epoch_generator
from trimtab.data.rows import TokenRow
from trimtab.data.updates import DataPosition, of_epoch


def first_rows(
    rows: Sequence[TokenRow], batching: Batching, num_updates: int
) -> tuple[TokenRow, ...]:
    """As few rows as the first `num_updates` updates take; all where those take the epoch.

    Updates of them are those of `rows`, but for the epochs and positions that are told, where
    `batching` has `packs_in_windows`. A row that is passed over has its place, without a token.
    Raises DataError as `updates` does.
    """
    made: dict[int, TokenRow] = {}
    number, num_left = len(rows), num_updates
    for taken in of_epoch(rows, batching, DataPosition(0, 0)):
        made.update(taken.rows)
        num_left -= bool(taken.units)
        if not num_left:
            number = taken.num_looked_at
            break
    # Where these rows alone are put in order, they come as they do among all.
    order = epoch_generator(batching, 0).permutation(len(rows))[:number].tolist()
    places = epoch_generator(batching, 0).permutation(number).tolist()
    index_at = dict(zip(places, order, strict=True))
    indices = [index_at[place] for place in range(number)]
    return tuple(made[index] if index in made else _passed_over(index) for index in indices)


def _passed_over(index: int) -> TokenRow:
    return TokenRow(index, np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.bool_))


class MadeOnce(Sequence[TokenRow]):
    """Rows that are made when the first is asked for; another process is handed them made."""

    def __init__(self, make: Callable[[], tuple[TokenRow, ...]]) -> None:
        self._make = make

    @cached_property
    def _rows(self) -> tuple[TokenRow, ...]:
        return self._make()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> TokenRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TokenRow]: ...
    def __getitem__(self, index: int | slice) -> TokenRow | Sequence[TokenRow]:
        return self._rows[index]

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self._rows,)
