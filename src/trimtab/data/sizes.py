"""How large micro-batches are, counted without laying them out.

The measures are those that an update's memory and time grow with. Pad tokens count: they are
computed like any other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab.data.batches import Batching, BatchRow, batch_rows
from trimtab.data.rows import TokenRow
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.positions import padded_length


@dataclass(frozen=True, slots=True)
class RowLengths:
    """Tokens and targets [N] of every example, counted once."""

    num_tokens: npt.NDArray[np.int64]
    num_trainable: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[TokenRow]) -> RowLengths:
        return cls(
            np.array([row.num_tokens for row in rows], dtype=np.int64),
            np.array([row.num_trainable_tokens for row in rows], dtype=np.int64),
        )


def update_sizes(
    rows: Sequence[TokenRow], batching: Batching, num_updates: int
) -> Iterator[tuple[MicroBatchSize, ...]]:
    """The sizes of this rank's micro-batches in the first `num_updates` updates, in their order."""
    lengths = RowLengths.of(rows)
    size = batching.per_device_train_batch_size
    global_batch_size = size * batching.gradient_accumulation_steps * batching.num_ranks
    epoch = 0
    while num_updates > 0:
        units = batch_rows(rows, batching, epoch)
        num_taken = min(num_updates, math.ceil(len(units) / global_batch_size))
        for start in range(0, num_taken * global_batch_size, global_batch_size):
            update = units[start : start + global_batch_size]
            yield tuple(
                group_size(lengths, update[first : first + size], batching)
                for first in range(0, len(update), size)[batching.rank :: batching.num_ranks]
            )
        num_updates -= num_taken
        epoch += 1


def group_size(
    lengths: RowLengths, group: Sequence[BatchRow], batching: Batching
) -> MicroBatchSize:
    """The size of the micro-batch that holds these batch rows."""
    indices = [index for batch_row in group for index in batch_row]
    tokens = lengths.num_tokens[indices]
    num_scored = int(lengths.num_trainable[indices].sum())
    if batching.packing or batching.padding == "none":
        return MicroBatchSize(int(tokens.sum()), num_scored, int((tokens**2).sum()))
    longest = int(tokens.max()) if batching.padding == "longest" else batching.max_length
    length = padded_length(longest, batching.pad_to_multiple_of)
    return MicroBatchSize(len(indices) * length, num_scored, len(indices) * length**2)
