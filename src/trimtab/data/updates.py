"""The rows of each weight update, in an order that can be taken up again anywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.data.batches import (
    Batching,
    BatchRow,
    batch_rows,
    dealt_micro_batches,
    epoch_generator,
    global_batch_size,
    num_batch_rows,
    packed_rows,
)
from trimtab.data.rows import BadRow, MicroBatch, TokenRow
from trimtab.data.streaming import StreamedRows
from trimtab.errors import DataError

WINDOW_ROWS = 1024
"""Examples that are made at once of rows that are tokenised as the run goes."""
PACKED_WINDOW_ROWS = 4096
"""Examples that are packed together of rows that are tokenised as the run goes."""
NO_TOKEN = "no token to train on"


@dataclass(frozen=True, slots=True)
class DataPosition:
    """Where the data goes on: the 0-based epoch, and the updates of a window that are done.

    The window is the epoch, but where rows are packed as the run goes: then it begins at the
    example that has the place `window_start` in the epoch's order, behind the `carried` examples,
    by their indices, that were too few for an update of the window before.
    """

    epoch: int
    update_in_window: int
    window_start: int = 0
    carried: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Update:
    """The micro-batches of one weight update.

    `micro_batches` are those of this rank; `row_ids` the examples of all ranks, in order, with
    `num_trainable_tokens` in them. `epoch` is the number of epochs seen once it is done, a
    fraction inside one; `position` is where the update after it starts.
    """

    micro_batches: tuple[MicroBatch, ...]
    row_ids: tuple[int, ...]
    num_trainable_tokens: int
    epoch: float
    position: DataPosition
    passed_over: tuple[BadRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """The batch rows of one update, with their examples by index, and the rows passed over.

    seen: the share of the epoch that is seen once it is done, its rows passed over included.
    num_looked_at: rows from the start of the epoch's order that it takes to know it.
    """

    units: Sequence[BatchRow]
    rows: Mapping[int, TokenRow]
    passed_over: list[BadRow]
    seen: float
    num_looked_at: int
    position: DataPosition


def updates(rows: Sequence[TokenRow], batching: Batching, start: DataPosition) -> Iterator[Update]:
    """Weight updates from `start` on, endlessly over the epochs.

    Each row comes exactly once in an epoch, in an order seeded by (data_seed, epoch); the last
    update of an epoch has what is left. Which rows an update holds depends on the global batch
    and not on its division into micro-batches, nor on the number of ranks, to which these are
    dealt in turn. An update whose rows are all passed over is none.

    Raises ValueError without rows, or where `start` lies behind its window's last update;
    DataError, in an update's turn at the latest, for a row that cannot be trained on.
    """
    if not rows:
        raise ValueError("no rows to make updates of")
    passed_over: list[BadRow] = []
    position = start
    while True:
        for taken in of_epoch(rows, batching, position):
            passed_over += taken.passed_over
            if not taken.units:
                continue
            examples = [taken.rows[i] for unit in taken.units for i in unit]
            size = batching.per_device_train_batch_size
            yield Update(
                micro_batches=dealt_micro_batches(taken.rows, taken.units, size, batching),
                row_ids=tuple(row.row_id for row in examples),
                num_trainable_tokens=sum(row.num_trainable_tokens for row in examples),
                epoch=position.epoch + taken.seen,
                position=taken.position,
                passed_over=tuple(passed_over),
            )
            passed_over = []
        if len(passed_over) >= len(rows):
            raise DataError("no row can be trained on: all were passed over.")
        position = DataPosition(position.epoch + 1, 0)


def of_epoch(rows: Sequence[TokenRow], batching: Batching, start: DataPosition) -> Iterator[Taken]:
    """The epoch's updates from `start` on, those without a row included."""
    in_windows = batching.packs_in_windows or isinstance(rows, StreamedRows)
    if batching.packing and in_windows:
        return _packed_in_windows(rows, batching, start)
    return _by_update(rows, batching, start)


def _by_update(
    rows: Sequence[TokenRow], batching: Batching, start: DataPosition
) -> Iterator[Taken]:
    """The epoch's updates from `start` on, made a window of them at a time."""
    units = batch_rows(rows, batching, start.epoch)
    size = global_batch_size(batching)
    num_updates = math.ceil(len(units) / size)
    _check_within(start, num_updates)
    per_window = max(1, WINDOW_ROWS // size) * size
    for first in range(start.update_in_window * size, len(units), per_window):
        window = units[first : first + per_window]
        good, bad = _made(rows, [index for unit in window for index in unit])
        for begin in range(0, len(window), size):
            wanted = window[begin : begin + size]
            done = (first + begin) // size + 1
            is_last = done == num_updates
            yield Taken(
                units=[unit for unit in wanted if all(index in good for index in unit)],
                rows=good,
                passed_over=[bad[index] for unit in wanted for index in unit if index in bad],
                seen=min(done * size, len(units)) / len(units),
                num_looked_at=len(rows) if batching.packing else min(done * size, len(rows)),
                position=DataPosition(start.epoch + (1 if is_last else 0), 0 if is_last else done),
            )


def _packed_in_windows(
    rows: Sequence[TokenRow], batching: Batching, start: DataPosition
) -> Iterator[Taken]:
    """The epoch's updates from `start` on, of examples that are packed a window at a time.

    Packed rows that are too few for an update go apart again, into the next window. Rows that are
    passed over are told with their window's first update.
    """
    epoch, size = start.epoch, global_batch_size(batching)
    order = epoch_generator(batching, epoch).permutation(len(rows))
    window_start, carried, first = start.window_start, start.carried, start.update_in_window
    while window_start < len(order):
        stop = min(window_start + PACKED_WINDOW_ROWS, len(order))
        is_last = stop == len(order)
        indices = [*carried, *order[window_start:stop].tolist()]
        good, bad = _made(rows, indices)
        lengths = [row.num_tokens for row in good.values()]
        generator = np.random.Generator(np.random.PCG64([batching.data_seed, epoch, stop]))
        units = packed_rows(list(good), lengths, batching.max_length, generator)
        num_updates = math.ceil(len(units) / size) if is_last else len(units) // size
        if first:
            _check_within(start, num_updates)
        left = tuple(index for unit in units[num_updates * size :] for index in unit)
        behind = DataPosition(epoch + 1, 0) if is_last else DataPosition(epoch, 0, stop, left)
        seen = window_start - len(carried) + len(bad)
        passed_over = [] if first else list(bad.values())
        if not num_updates:
            yield Taken([], good, passed_over, seen / len(order), stop, behind)
        for done in range(1, num_updates + 1):
            wanted = units[(done - 1) * size : done * size]
            seen += sum(map(len, wanted))
            if done <= first:
                continue
            is_behind = done == num_updates
            inside = DataPosition(epoch, done, window_start, carried)
            position = behind if is_behind else inside
            yield Taken(wanted, good, passed_over, seen / len(order), stop, position)
            passed_over = []
        window_start, carried, first = stop, left, 0


def _made(
    rows: Sequence[TokenRow], indices: Sequence[int]
) -> tuple[dict[int, TokenRow], dict[int, BadRow]]:
    """The rows at these indices, in this order, and those that are passed over.

    A row without a token holds the place of one that was passed over when it was made.
    """
    made: Sequence[TokenRow | BadRow]
    if isinstance(rows, StreamedRows):
        made = rows.made(indices)
    else:
        made = [rows[index] for index in indices]
    good, bad = {}, {}
    for index, row in zip(indices, made, strict=True):
        if isinstance(row, BadRow):
            bad[index] = row
        elif not row.num_tokens:
            bad[index] = BadRow("", row.row_id, NO_TOKEN)
        else:
            good[index] = row
    return good, bad


def _check_within(start: DataPosition, num_updates: int) -> None:
    if not 0 <= start.update_in_window < num_updates:
        raise ValueError(f"update {start.update_in_window} of a window that has {num_updates}")


def num_updates_per_epoch(rows: Sequence[TokenRow], batching: Batching) -> int:
    """Weight updates in one epoch: the same in every epoch, packed or not.

    Not of rows that are packed as the run goes: theirs are not known before.
    """
    return math.ceil(num_batch_rows(rows, batching) / global_batch_size(batching))


def within_epoch(
    position: DataPosition, rows: Sequence[TokenRow], batching: Batching
) -> DataPosition:
    """`position`, or the next epoch's start where these rows make a shorter one that is over.

    For rows or a batching that are others than those the position comes from.
    """
    if position.window_start >= len(rows) or any(i >= len(rows) for i in position.carried):
        return DataPosition(position.epoch + 1, 0)
    try:
        next(of_epoch(rows, batching, position), None)
    except ValueError:
        return DataPosition(position.epoch + 1, 0)
    return position
