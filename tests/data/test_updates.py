"""The order of updates, and taking it up again."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.batches import SMALL_BATCHING, many_rows

from trimtab.data.batches import Batching, num_batch_rows
from trimtab.data.rows import TokenRow
from trimtab.data.updates import DataPosition, Update, num_updates_per_epoch, updates

START = DataPosition(0, 0)


def first(count: int, rows: list[TokenRow], batching: Batching, start: DataPosition = START) -> Any:
    return list(itertools.islice(updates(rows, batching, start), count))


def row_ids(update: Update) -> list[int]:
    return [row_id for batch in update.micro_batches for row_id in batch.row_ids]


@pytest.mark.parametrize("packing", [False, True])
def test_each_row_exactly_once_an_epoch(packing: bool) -> None:
    rows = many_rows(31)
    batching = replace(SMALL_BATCHING, packing=packing)
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
    batching = replace(SMALL_BATCHING, packing=packing)
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
    assert num_updates_per_epoch(rows, SMALL_BATCHING) == 3
    sizes = [
        [len(b.row_ids) for b in update.micro_batches] for update in first(3, rows, SMALL_BATCHING)
    ]
    assert sizes == [[2, 2], [2, 2], [2]]


@pytest.mark.parametrize(("micro", "accumulation"), [(1, 4), (4, 1)])
@pytest.mark.parametrize("packing", [False, True])
def test_order_does_not_depend_on_the_micro_batch(
    micro: int, accumulation: int, packing: bool
) -> None:
    rows = many_rows(27)
    one = replace(SMALL_BATCHING, packing=packing)
    other = replace(
        one, per_device_train_batch_size=micro, gradient_accumulation_steps=accumulation
    )
    for a, b in zip(first(12, rows, one), first(12, rows, other), strict=True):
        assert row_ids(a) == row_ids(b)
        assert (a.epoch, a.position) == (b.epoch, b.position)


@pytest.mark.parametrize("packing", [False, True])
def test_starting_at_any_position_continues_exactly(packing: bool) -> None:
    rows = many_rows(23)
    batching = replace(SMALL_BATCHING, packing=packing)
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
    same = [row_ids(u) for u in first(8, rows, SMALL_BATCHING)]
    assert same == [row_ids(u) for u in first(8, rows, SMALL_BATCHING)]
    assert same != [row_ids(u) for u in first(8, rows, replace(SMALL_BATCHING, data_seed=8))]


def test_packed_rows_are_full_of_whole_examples() -> None:
    rows = many_rows(60)
    batching = replace(
        SMALL_BATCHING, packing=True, per_device_train_batch_size=1, gradient_accumulation_steps=1
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
    batching = replace(SMALL_BATCHING, packing=True)
    per_epoch = num_updates_per_epoch(rows, batching)
    made = first(2 * per_epoch, rows, batching)
    together = [
        {frozenset(row_ids(update)) for update in made[:per_epoch]},
        {frozenset(row_ids(update)) for update in made[per_epoch:]},
    ]
    assert together[0] != together[1]


def test_impossible_starts_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        first(1, [], SMALL_BATCHING)
    with pytest.raises(ValueError, match="update 9 of a window that has 3"):
        first(1, many_rows(10), SMALL_BATCHING, DataPosition(0, 9))
