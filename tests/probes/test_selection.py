from __future__ import annotations

from itertools import islice

import pytest
from support.batches import ragged_rows
from support.settings import tiny_settings

from trimtab.data.batches import batch_rows, micro_batch
from trimtab.data.updates import DataPosition, updates
from trimtab.engine.building import batching
from trimtab.planning.measuring import PRECISION_TOKENS
from trimtab.planning.questions import Trial
from trimtab.probes.selection import (
    first_updates,
    num_tokens,
    precision_rows,
    trial_rows,
)


@pytest.mark.parametrize("packing", [False, True])
def test_the_longest_rows_are_taken(packing: bool) -> None:
    rows = ragged_rows(range(3, 27))
    units = batch_rows(rows, batching(tiny_settings(packing=packing, max_length=30)))
    taken = trial_rows(rows, units, Trial("off", 3))
    lengths = sorted((num_tokens(rows, unit) for unit in units), reverse=True)
    assert [num_tokens(rows, unit) for unit in taken] == lengths[:3]


def test_a_trial_of_more_rows_than_there_are_takes_all() -> None:
    rows = ragged_rows((5, 6))
    units = batch_rows(rows, batching(tiny_settings()))
    assert sorted(trial_rows(rows, units, Trial("off", 9))) == [[0], [1]]


def test_rows_for_number_formats_are_of_middle_length_and_few_tokens() -> None:
    joined = batching(tiny_settings())
    rows = precision_rows(ragged_rows([10] * 40 + [100] * 60 + [400] * 30), joined)
    assert [row.num_tokens for row in rows] == [100] * 3
    (only,) = precision_rows(ragged_rows([2000]), joined)
    assert only.num_tokens == PRECISION_TOKENS
    assert only.num_trainable_tokens > 0
    assert not only.trainable[0]


@pytest.mark.parametrize(
    ("lengths", "multiple", "expected"),
    [
        ([10, 10, 10, 20, 200, 200, 200], None, [10, 10, 10, 20]),
        ([30] * 40, 128, [30] * 3),
        ([30] * 40, 1024, [30]),
    ],
)
def test_pad_tokens_count_among_the_few(
    lengths: list[int], multiple: int | None, expected: list[int]
) -> None:
    layout = batching(tiny_settings(padding="longest", pad_to_multiple_of=multiple))
    rows = precision_rows(ragged_rows(lengths), layout)
    assert [row.num_tokens for row in rows] == expected


@pytest.mark.parametrize("packing", [False, True])
def test_the_first_update_is_the_runs_own(packing: bool) -> None:
    rows = ragged_rows(range(3, 27))
    layout = batching(
        tiny_settings(packing=packing, per_device_train_batch_size=3, gradient_accumulation_steps=2)
    )
    run = next(updates(rows, layout, DataPosition(0, 0))).micro_batches
    groups = first_updates(rows, layout)
    assert [micro_batch(rows, group, layout).row_ids for group in groups] == [
        batch.row_ids for batch in run
    ]


def test_the_first_updates_are_those_of_one_epoch() -> None:
    rows = ragged_rows(range(3, 27))
    layout = batching(tiny_settings(per_device_train_batch_size=3, gradient_accumulation_steps=2))
    groups = first_updates(rows, layout, 3)
    run = islice(updates(rows, layout, DataPosition(0, 0)), 3)
    assert [micro_batch(rows, group, layout).row_ids for group in groups] == [
        batch.row_ids for update in run for batch in update.micro_batches
    ]
