"""Collation, the order of updates, and taking it up again."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from trimtab.data.batches import (
    Batching,
    DataPosition,
    Update,
    collate,
    collate_packed,
    eval_batches,
    num_batch_rows,
    num_updates_per_epoch,
    updates,
)
from trimtab.data.rows import IGNORED, MicroBatch, TokenRow

PAD = 5
BATCHING = Batching(
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    packing=False,
    max_length=32,
    padding="none",
    padding_side="right",
    pad_token_id=PAD,
    pad_to_multiple_of=None,
    data_seed=7,
)
START = DataPosition(0, 0)


def token_row(row_id: int, ids: list[int], trainable: list[int]) -> TokenRow:
    return TokenRow(row_id, np.array(ids, dtype=np.int32), np.array(trainable, dtype=np.bool_))


def many_rows(count: int, seed: int = 0) -> list[TokenRow]:
    generator = np.random.default_rng(seed)
    rows = []
    for row_id in range(count):
        length = int(generator.integers(2, 20))
        trainable = np.ones(length, dtype=np.bool_)
        trainable[0] = False
        ids = generator.integers(10, 300, size=length).astype(np.int32)
        rows.append(TokenRow(row_id, ids, trainable))
    return rows


SHORT = token_row(3, [10, 11, 12], [0, 0, 1])
LONG = token_row(8, [20, 21, 22, 23, 24], [0, 1, 0, 1, 1])


def collated(rows: list[TokenRow], **changes: Any) -> MicroBatch:
    arguments: dict[str, Any] = {
        "padding": "longest",
        "padding_side": "right",
        "pad_token_id": PAD,
        "pad_to_multiple_of": None,
        "max_length": 8,
    }
    return collate(rows, **{**arguments, **changes})


def test_padding_free_rows_lie_end_to_end() -> None:
    batch = collated([SHORT, LONG], padding="none")
    assert batch.input_ids.tolist() == [[10, 11, 12, 20, 21, 22, 23, 24]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 2, 3, 4]]
    # No target crosses from one document into the next.
    assert batch.targets.tolist() == [[IGNORED, 12, IGNORED, 21, IGNORED, 23, 24, IGNORED]]
    assert batch.attention_mask is None
    assert batch.document_lengths == (3, 5)
    assert (batch.num_tokens, batch.num_trainable_tokens) == (8, 4)
    assert batch.row_ids == (3, 8)
    assert batch.input_ids.dtype == batch.position_ids.dtype == batch.targets.dtype == torch.int64


def test_right_padding() -> None:
    batch = collated([SHORT, LONG])
    assert batch.input_ids.tolist() == [[10, 11, 12, PAD, PAD], [20, 21, 22, 23, 24]]
    assert batch.position_ids[0, :3].tolist() == [0, 1, 2]
    assert batch.targets[0].tolist() == [IGNORED, 12, IGNORED, IGNORED, IGNORED]
    assert batch.attention_mask is not None
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.document_lengths is None
    assert (batch.num_tokens, batch.num_trainable_tokens) == (8, 4)


def test_left_padding_counts_positions_from_the_first_real_token() -> None:
    batch = collated([SHORT, LONG], padding_side="left")
    assert batch.input_ids[0].tolist() == [PAD, PAD, 10, 11, 12]
    assert batch.position_ids[0, 2:].tolist() == [0, 1, 2]
    assert batch.targets[0].tolist() == [IGNORED, IGNORED, IGNORED, 12, IGNORED]
    assert batch.attention_mask is not None
    assert batch.attention_mask[0].tolist() == [0, 0, 1, 1, 1]


def test_max_length_pads_to_it_and_multiples_round_up() -> None:
    assert collated([SHORT, LONG], padding="max_length").input_ids.shape == (2, 8)
    assert collated([SHORT, LONG], pad_to_multiple_of=4).input_ids.shape == (2, 8)
    rounded = collated([SHORT], padding="max_length", max_length=10, pad_to_multiple_of=16)
    assert rounded.input_ids.shape == (1, 16)


def test_a_multiple_has_no_effect_without_padding() -> None:
    batch = collated([SHORT, LONG], padding="none", pad_to_multiple_of=16)
    assert batch.input_ids.shape == (1, 8)


def test_rows_of_one_length_need_no_mask() -> None:
    batch = collated([SHORT, replace(SHORT, row_id=4)])
    assert batch.attention_mask is None
    assert batch.document_lengths is None


def test_a_row_over_max_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of 5 tokens does not fit max_length 4"):
        collated([LONG], padding="max_length", max_length=4)


def test_the_pad_token_inside_a_row_is_a_target_like_any_other() -> None:
    ends_with_pad = token_row(0, [10, 11, PAD], [0, 1, 1])
    batch = collated([ends_with_pad, LONG])
    assert batch.targets[0].tolist() == [11, PAD, IGNORED, IGNORED, IGNORED]
    assert batch.attention_mask is not None
    assert batch.attention_mask[0].tolist() == [1, 1, 1, 0, 0]


def test_packed_rows_keep_their_documents() -> None:
    batch = collate_packed([[SHORT, LONG], [SHORT]])
    assert batch.document_lengths == (3, 5, 3)
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2]]
    assert batch.row_ids == (3, 8, 3)


def first(count: int, rows: list[TokenRow], batching: Batching, start: DataPosition = START) -> Any:
    return list(itertools.islice(updates(rows, batching, start), count))


def row_ids(update: Update) -> list[int]:
    return [row_id for batch in update.micro_batches for row_id in batch.row_ids]


@pytest.mark.parametrize("packing", [False, True])
def test_each_row_exactly_once_an_epoch(packing: bool) -> None:
    rows = many_rows(31)
    batching = replace(BATCHING, packing=packing)
    per_epoch = num_updates_per_epoch(rows, batching)
    epochs = first(2 * per_epoch, rows, batching)
    orders = []
    for epoch in (epochs[:per_epoch], epochs[per_epoch:]):
        order = [row_id for update in epoch for row_id in row_ids(update)]
        assert Counter(order) == Counter(range(31))
        orders.append(order)
    assert orders[0] != orders[1]
    assert orders[0] != list(range(31))


@pytest.mark.parametrize("packing", [False, True])
def test_epochs_and_positions(packing: bool) -> None:
    rows = many_rows(31)
    batching = replace(BATCHING, packing=packing)
    per_epoch = num_updates_per_epoch(rows, batching)
    made = first(per_epoch + 1, rows, batching)
    num_units = num_batch_rows(rows, batching)
    assert made[0].epoch == pytest.approx(4 / num_units)
    assert made[0].position == DataPosition(0, 1)
    assert made[per_epoch - 1].epoch == 1.0
    assert made[per_epoch - 1].position == DataPosition(1, 0)
    assert made[per_epoch].epoch == pytest.approx(1 + 4 / num_units)


def test_the_last_update_has_what_is_left() -> None:
    rows = many_rows(10)
    assert num_updates_per_epoch(rows, BATCHING) == 3
    sizes = [[len(b.row_ids) for b in update.micro_batches] for update in first(3, rows, BATCHING)]
    assert sizes == [[2, 2], [2, 2], [2]]


@pytest.mark.parametrize(("micro", "accumulation"), [(1, 4), (4, 1)])
@pytest.mark.parametrize("packing", [False, True])
def test_order_does_not_depend_on_the_micro_batch(
    micro: int, accumulation: int, packing: bool
) -> None:
    rows = many_rows(27)
    one = replace(BATCHING, packing=packing)
    other = replace(
        one, per_device_train_batch_size=micro, gradient_accumulation_steps=accumulation
    )
    for a, b in zip(first(12, rows, one), first(12, rows, other), strict=True):
        assert row_ids(a) == row_ids(b)
        assert (a.epoch, a.position) == (b.epoch, b.position)


@pytest.mark.parametrize("packing", [False, True])
def test_starting_at_any_position_continues_exactly(packing: bool) -> None:
    rows = many_rows(23)
    batching = replace(BATCHING, packing=packing)
    whole = first(14, rows, batching)
    for done in range(1, 13):
        resumed = first(14 - done, rows, batching, whole[done - 1].position)
        for ours, theirs in zip(resumed, whole[done:], strict=True):
            assert ours.position == theirs.position
            for a, b in zip(ours.micro_batches, theirs.micro_batches, strict=True):
                assert torch.equal(a.input_ids, b.input_ids)
                assert torch.equal(a.targets, b.targets)
                assert a.row_ids == b.row_ids


def test_the_seed_decides_the_order() -> None:
    rows = many_rows(31)
    same = [row_ids(u) for u in first(8, rows, BATCHING)]
    assert same == [row_ids(u) for u in first(8, rows, BATCHING)]
    assert same != [row_ids(u) for u in first(8, rows, replace(BATCHING, data_seed=8))]


def test_packed_rows_are_full_of_whole_examples() -> None:
    rows = many_rows(60)
    batching = replace(
        BATCHING, packing=True, per_device_train_batch_size=1, gradient_accumulation_steps=1
    )
    per_epoch = num_updates_per_epoch(rows, batching)
    made = first(per_epoch, rows, batching)
    sizes = [update.micro_batches[0].num_tokens for update in made]
    assert max(sizes) <= 32
    assert sum(sizes) == sum(row.num_tokens for row in rows)
    assert per_epoch == num_batch_rows(rows, batching)
    assert per_epoch <= 1.1 * sum(sizes) / 32 + 1


def test_the_packed_neighbours_change_from_epoch_to_epoch() -> None:
    rows = many_rows(60)
    batching = replace(BATCHING, packing=True)
    per_epoch = num_updates_per_epoch(rows, batching)
    made = first(2 * per_epoch, rows, batching)
    together = [
        {frozenset(row_ids(update)) for update in made[:per_epoch]},
        {frozenset(row_ids(update)) for update in made[per_epoch:]},
    ]
    assert together[0] != together[1]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_sees_each_row_once(packing: bool, batch_size: int) -> None:
    rows = many_rows(23)
    batches = list(eval_batches(rows, batch_size, replace(BATCHING, packing=packing)))
    seen = [row_id for batch in batches for row_id in batch.row_ids]
    assert sorted(seen) == list(range(23))
    assert sum(b.num_trainable_tokens for b in batches) == sum(
        row.num_trainable_tokens for row in rows
    )
    if not packing:
        assert seen == list(range(23))


def test_impossible_starts_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        first(1, [], BATCHING)
    with pytest.raises(ValueError, match="update 9 of an epoch that has 3"):
        first(1, many_rows(10), BATCHING, DataPosition(0, 9))
