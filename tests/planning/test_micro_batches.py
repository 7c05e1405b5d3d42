from __future__ import annotations

import pytest
from planning.facts import as_facts

from trimtab.hyperparameters.config import Padding
from trimtab.planning.micro_batches import (
    MicroBatchSize,
    examples_per_update,
    largest_micro_batch,
    mean_micro_batch,
)
from trimtab.planning.positions import Layout

ROWS = {
    "rows.num_examples": 100,
    "rows.num_rows": 100,
    "rows.num_tokens": 5000,
    "rows.num_trainable_tokens": 2000,
    "rows.length_mean": 50.0,
    "rows.length_max": 120,
    "rows.trainable_length_max": 70,
    "rows.longest_lengths": [120, 100, 90],
    "rows.most_scored": [70, 60, 60],
    "data.length_quantiles": [50.0] * 201,
}
JOINED = Layout("none", 128, None)


def test_the_largest_rows_together() -> None:
    found = largest_micro_batch(as_facts(ROWS), JOINED, 2, packing=False)
    assert found == MicroBatchSize(220, 130, 120**2 + 100**2)


def test_rows_beyond_the_list_are_as_its_last() -> None:
    found = largest_micro_batch(as_facts(ROWS), JOINED, 5, packing=False)
    assert found == MicroBatchSize(120 + 100 + 3 * 90, 70 + 4 * 60, 120**2 + 100**2 + 3 * 90**2)


def test_a_whole_list_has_no_rows_beyond_it() -> None:
    three = ROWS | {"rows.num_rows": 3}
    found = largest_micro_batch(as_facts(three), JOINED, 5, packing=False)
    assert found == MicroBatchSize(310, 190, 120**2 + 100**2 + 90**2)


def test_without_the_lists_every_row_is_the_longest() -> None:
    known = {key: value for key, value in ROWS.items() if key[5:] not in ("longest_lengths",)}
    found = largest_micro_batch(as_facts(known), JOINED, 2, packing=False)
    assert found == MicroBatchSize(240, 140, 2 * 120**2)


@pytest.mark.parametrize(
    ("layout", "length"),
    [
        (Layout("longest", 128, None), 120),
        (Layout("longest", 128, 64), 128),
        (Layout("max_length", 256, None), 256),
    ],
)
def test_padded_rows_are_as_long_as_the_batch(layout: Layout, length: int) -> None:
    found = largest_micro_batch(as_facts(ROWS), layout, 3, packing=False)
    assert found == MicroBatchSize(3 * length, 3 * 70, 3 * length**2)


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_there_are_no_more_padded_rows_than_rows(padding: Padding) -> None:
    facts, layout = as_facts(ROWS), Layout(padding, 128, None)
    found = largest_micro_batch(facts, layout, 4096, packing=False)
    assert found == largest_micro_batch(facts, layout, 100, packing=False)


@pytest.mark.parametrize(
    ("global_batch_size", "num_rows", "expected"), [(8, 100, 8), (8, 50, 16), (64, 50, 100)]
)
def test_an_update_has_no_more_examples_than_there_are(
    global_batch_size: int, num_rows: int, expected: float
) -> None:
    facts = as_facts(ROWS | {"rows.num_rows": num_rows})
    assert examples_per_update(facts, global_batch_size) == expected


def test_packed_rows_without_lists_are_full() -> None:
    known = {key: value for key, value in ROWS.items() if "longest" not in key}
    found = largest_micro_batch(as_facts(known), JOINED, 2, packing=True)
    assert found == MicroBatchSize(256, 2 * 70, 2 * 128**2)


def test_the_mean_of_joined_rows() -> None:
    found = mean_micro_batch(as_facts(ROWS), JOINED, 4, packing=False)
    assert found == MicroBatchSize(200, 80, 4 * 50**2)
    assert found.times(0.5) == MicroBatchSize(100, 40, 2 * 50**2)
