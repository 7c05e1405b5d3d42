from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from support.batches import PAD_ID, ragged_rows, size_of

from trimtab.data.batches import Batching, batch_rows, micro_batch
from trimtab.data.sizes import RowLengths, group_size, update_sizes
from trimtab.data.updates import DataPosition, updates

LAYOUTS: tuple[dict[str, Any], ...] = (
    {"padding": "none"},
    {"padding": "longest"},
    {"padding": "longest", "padding_side": "left"},
    {"padding": "longest", "pad_to_multiple_of": 16},
    {"padding": "max_length"},
    {"padding": "max_length", "padding_side": "left"},
    {"packing": True},
)


def layout_of(changes: dict[str, Any]) -> Batching:
    given: dict[str, Any] = {
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "packing": False,
        "max_length": 40,
        "padding": "none",
        "padding_side": "right",
        "pad_token_id": PAD_ID,
        "pad_to_multiple_of": None,
        "data_seed": 7,
    }
    return Batching(**{**given, **changes})


@pytest.mark.parametrize("changes", LAYOUTS, ids=str)
def test_sizes_are_those_of_the_batches_that_training_lays_out(changes: dict[str, Any]) -> None:
    rows, batching = ragged_rows(range(3, 27)), layout_of(changes)
    made = [
        tuple(size_of(batch) for batch in update.micro_batches)
        for update in islice(updates(rows, batching, DataPosition(0, 0)), 9)
    ]
    assert list(update_sizes(rows, batching, 9)) == made


@pytest.mark.parametrize("changes", LAYOUTS, ids=str)
def test_a_group_has_the_size_of_its_micro_batch(changes: dict[str, Any]) -> None:
    rows, batching = ragged_rows(), layout_of(changes)
    group = batch_rows(rows, batching)[:2]
    batch = micro_batch(rows, group, batching)
    assert group_size(RowLengths.of(rows), group, batching) == size_of(batch)


def test_pads_count_and_are_not_scored() -> None:
    rows = ragged_rows((4, 10))
    batching = layout_of({"padding": "longest", "pad_to_multiple_of": 4})
    size = group_size(RowLengths.of(rows), [[0], [1]], batching)
    assert (size.num_tokens, size.sum_length_squared) == (24, 288)
    assert size.num_scored == sum(row.num_trainable_tokens for row in rows)
