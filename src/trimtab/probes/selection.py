"""Which rows a measurement works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trimtab.data.batches import Batching, BatchRow, batch_rows
from trimtab.data.rows import TokenRow
from trimtab.data.sizes import RowLengths, group_size
from trimtab.planning.measuring import PRECISION_TOKENS
from trimtab.planning.questions import Trial


def trial_rows(rows: Sequence[TokenRow], units: Sequence[BatchRow], trial: Trial) -> list[BatchRow]:
    """The longest batch rows, as many as the trial asks for, or all where there are fewer."""
    longest_first = sorted(units, key=lambda unit: -num_tokens(rows, unit))
    return longest_first[: trial.num_rows]


def num_tokens(rows: Sequence[TokenRow], unit: BatchRow) -> int:
    return sum(rows[index].num_tokens for index in unit)


def num_computed_tokens(rows: Sequence[TokenRow], layout: Batching) -> int:
    """Tokens of one micro-batch of these examples, pad tokens among them."""
    units = [[index] for index in range(len(rows))]
    return int(group_size(RowLengths.of(rows), units, layout).num_tokens)


def precision_rows(rows: Sequence[TokenRow], layout: Batching) -> list[TokenRow]:
    """Examples around the middle of the lengths, of at most 512 tokens together; at least one.

    Pad tokens count. A longer one gives its end, where its targets are likely to stand.
    """
    by_length = sorted(rows, key=lambda row: row.num_tokens)
    middle = by_length[len(by_length) // 2]
    if middle.num_tokens > PRECISION_TOKENS:
        return [_end_of(middle)]
    num_fitting = max(1, PRECISION_TOKENS // num_computed_tokens([middle], layout))
    num_taken = min(len(by_length), num_fitting)
    first = (len(by_length) - num_taken) // 2
    taken = by_length[first : first + num_taken]
    while len(taken) > 1 and num_computed_tokens(taken, layout) > PRECISION_TOKENS:
        taken.pop()
    return taken


def _end_of(row: TokenRow) -> TokenRow:
    """The last tokens, up to the last target, with as many before it as are allowed."""
    stop = int(row.trainable.nonzero()[0].max()) + 1
    start = max(0, stop - PRECISION_TOKENS)
    if stop - start < 2:
        start, stop = 0, 2
    trainable = row.trainable[start:stop].copy()
    trainable[0] = False
    if not trainable.any():
        trainable[-1] = True
    return replace(row, input_ids=row.input_ids[start:stop], trainable=trainable)


def first_updates(
    rows: Sequence[TokenRow], batching: Batching, num_updates: int = 1
) -> list[list[BatchRow]]:
    """The micro-batches of the first weight updates of the first epoch, as groups of batch rows."""
    size = batching.per_device_train_batch_size
    num_units = num_updates * size * batching.gradient_accumulation_steps
    units = batch_rows(rows, batching)[:num_units]
    return [list(units[start : start + size]) for start in range(0, len(units), size)]
