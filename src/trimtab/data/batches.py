"""Token rows to batch rows, and these to micro-batches.

Shapes: B rows, L padded length, T tokens of a padding-free micro-batch, D documents in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from trimtab.data.packing import best_fit_decreasing
from trimtab.data.rows import IGNORED, MicroBatch, TokenRow
from trimtab.hyperparameters.config import Padding, PaddingSide
from trimtab.planning.positions import padded_length

BatchRow = Sequence[int]
"""Indices of the examples that one row of a batch holds: one, or those of a packed row."""

RowsByIndex = Sequence[TokenRow] | Mapping[int, TokenRow]
"""Token rows in a sequence, or some of them by their indices in it."""


@dataclass(frozen=True, slots=True)
class Batching:
    """How rows become micro-batches and updates; names and units are the catalogue's.

    With `packing` the unit of a batch is a packed row of at most `max_length` tokens, laid out
    without padding whatever `padding` says. Of `num_ranks` processes that train together this is
    the one numbered `rank`. `even_rounds` gives every rank as many micro-batches as the first,
    idle ones at the end where there is no more to do: ranks that hold shards of the weights must
    make their forward passes together. `packs_in_windows`: rows are packed as those are that are
    tokenised as the run goes, wherever they come from.
    """

    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    packing: bool
    max_length: int
    padding: Padding
    padding_side: PaddingSide
    pad_token_id: int
    pad_to_multiple_of: int | None
    data_seed: int
    rank: int = 0
    num_ranks: int = 1
    even_rounds: bool = False
    packs_in_windows: bool = False


def collate(
    rows: Sequence[TokenRow],
    *,
    padding: Padding,
    padding_side: PaddingSide,
    pad_token_id: int,
    pad_to_multiple_of: int | None,
    max_length: int,
) -> MicroBatch:
    """One micro-batch of rows, at least one.

    `none` joins the rows end to end: [1, T]. It computes no pad token, so `pad_to_multiple_of`
    has nothing to round and no effect. `longest` and `max_length` give [B, L], L rounded up to
    `pad_to_multiple_of`.

    Raises ValueError where a row is longer than `max_length` under that padding.
    """
    import torch

    if padding == "none":
        return _end_to_end(rows)
    longest = max(row.num_tokens for row in rows)
    if padding == "max_length" and longest > max_length:
        raise ValueError(f"a row of {longest} tokens does not fit max_length {max_length}")
    length = padded_length(longest if padding == "longest" else max_length, pad_to_multiple_of)
    shape = (len(rows), length)
    input_ids = np.full(shape, pad_token_id, dtype=np.int64)
    position_ids = np.zeros(shape, dtype=np.int64)
    targets = np.full(shape, IGNORED, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    for index, row in enumerate(rows):
        start = 0 if padding_side == "right" else length - row.num_tokens
        real = slice(start, start + row.num_tokens)
        input_ids[index, real] = row.input_ids
        position_ids[index, real] = np.arange(row.num_tokens)
        targets[index, real] = _shifted_targets(row)
        mask[index, real] = 1
    return MicroBatch(
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(position_ids),
        targets=torch.from_numpy(targets),
        attention_mask=None if mask.all() else torch.from_numpy(mask),
        document_lengths=None,
        num_tokens=int(mask.sum()),
        num_trainable_tokens=int((targets != IGNORED).sum()),
        row_ids=tuple(row.row_id for row in rows),
    )


def collate_packed(packed_rows: Sequence[Sequence[TokenRow]]) -> MicroBatch:
    """One micro-batch of packed rows, [1, T]; each example stays a document of its own."""
    return _end_to_end([row for packed in packed_rows for row in packed])


def _end_to_end(rows: Sequence[TokenRow]) -> MicroBatch:
    import torch

    lengths = tuple(row.num_tokens for row in rows)
    input_ids = np.concatenate([row.input_ids for row in rows]).astype(np.int64)
    position_ids = np.concatenate([np.arange(length, dtype=np.int64) for length in lengths])
    targets = np.concatenate([_shifted_targets(row) for row in rows])
    return MicroBatch(
        input_ids=torch.from_numpy(input_ids)[None],
        position_ids=torch.from_numpy(position_ids)[None],
        targets=torch.from_numpy(targets)[None],
        attention_mask=None,
        document_lengths=lengths,
        num_tokens=sum(lengths),
        num_trainable_tokens=int((targets != IGNORED).sum()),
        row_ids=tuple(row.row_id for row in rows),
    )


def _shifted_targets(row: TokenRow) -> npt.NDArray[np.int64]:
    targets = np.full(row.num_tokens, IGNORED, dtype=np.int64)
    targets[:-1] = np.where(row.trainable[1:], row.input_ids[1:], IGNORED)
    return targets


def num_batch_rows(rows: Sequence[TokenRow], batching: Batching) -> int:
    """What batch sizes count: packed rows where `packing` is on, else the examples."""
    if not batching.packing:
        return len(rows)
    return len(best_fit_decreasing([row.num_tokens for row in rows], batching.max_length))


def eval_batches(
    rows: Sequence[TokenRow], batch_size: int, batching: Batching
) -> Iterator[MicroBatch]:
    """Every row once, in a fixed order, `batch_size` of them (packed rows under `packing`).

    They are dealt to the ranks in turn, and each rank gets as many, idle ones included.
    """
    if batching.packing:
        units = best_fit_decreasing([row.num_tokens for row in rows], batching.max_length)
    else:
        units = [[index] for index in range(len(rows))]
    a_round = batch_size * batching.num_ranks
    even = replace(batching, even_rounds=True)
    for start in range(0, len(units), a_round):
        yield from dealt_micro_batches(rows, units[start : start + a_round], batch_size, even)


def global_batch_size(batching: Batching) -> int:
    """Batch rows of one weight update, over all ranks."""
    per_rank = batching.per_device_train_batch_size * batching.gradient_accumulation_steps
    return per_rank * batching.num_ranks


def epoch_generator(batching: Batching, epoch: int) -> np.random.Generator:
    """Its first draw is the order that the epoch's rows come in."""
    return np.random.Generator(np.random.PCG64([batching.data_seed, epoch]))


def batch_rows(rows: Sequence[TokenRow], batching: Batching, epoch: int = 0) -> list[list[int]]:
    """The epoch's batch rows in their seeded order, each a list of indices into `rows`."""
    generator = epoch_generator(batching, epoch)
    order = generator.permutation(len(rows)).tolist()
    if not batching.packing:
        return [[index] for index in order]
    # Packing in the epoch's order lets examples of equal length meet other neighbours each epoch;
    # the number of packed rows stays what it is.
    lengths = [rows[index].num_tokens for index in order]
    return packed_rows(order, lengths, batching.max_length, generator)


def packed_rows(
    indices: Sequence[int], lengths: Sequence[int], capacity: int, generator: np.random.Generator
) -> list[list[int]]:
    """Packed rows of these examples, `lengths` in tokens, in an order that is drawn."""
    bins = best_fit_decreasing(lengths, capacity)
    return [[indices[i] for i in bins[b]] for b in generator.permutation(len(bins)).tolist()]


def micro_batch(rows: RowsByIndex, group: Sequence[BatchRow], batching: Batching) -> MicroBatch:
    """The group's batch rows as one micro-batch, laid out as training lays them out."""
    if batching.packing:
        return collate_packed([[rows[index] for index in batch_row] for batch_row in group])
    return collate(
        [rows[index] for batch_row in group for index in batch_row],
        padding=batching.padding,
        padding_side=batching.padding_side,
        pad_token_id=batching.pad_token_id,
        pad_to_multiple_of=batching.pad_to_multiple_of,
        max_length=batching.max_length,
    )


def dealt_micro_batches(
    rows: RowsByIndex, ordered: Sequence[BatchRow], size: int, batching: Batching
) -> tuple[MicroBatch, ...]:
    """The micro-batches of this rank, of `size` batch rows each but the last.

    All ranks' together, in rounds, are what a single rank makes of the same rows. There may be
    none for a rank where the rows are few, unless `even_rounds` asks for an idle one.
    """
    starts = range(0, len(ordered), size)
    own = [
        micro_batch(rows, ordered[start : start + size], batching)
        for start in starts[batching.rank :: batching.num_ranks]
    ]
    num_rounds = math.ceil(len(starts) / batching.num_ranks)
    if batching.even_rounds and len(own) < num_rounds:
        own.append(_idle(micro_batch(rows, ordered[:size], batching)))
    return tuple(own)


def _idle(batch: MicroBatch) -> MicroBatch:
    """Something to pass through the model that counts for nothing: its loss and gradient are 0."""
    return replace(
        batch,
        targets=batch.targets.new_full(batch.targets.shape, IGNORED),
        num_tokens=0,
        num_trainable_tokens=0,
        row_ids=(),
    )
