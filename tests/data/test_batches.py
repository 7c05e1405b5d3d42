"""Rows as micro-batches, padded, joined and packed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.batches import PAD_ID, SMALL_BATCHING, many_rows

from trimtab.data.batches import collate, collate_packed, eval_batches
from trimtab.data.rows import IGNORED, MicroBatch, TokenRow


def token_row(row_id: int, ids: list[int], trainable: list[int]) -> TokenRow:
    return TokenRow(row_id, np.array(ids, dtype=np.int32), np.array(trainable, dtype=np.bool_))


SHORT = token_row(3, [10, 11, 12], [0, 0, 1])
LONG = token_row(8, [20, 21, 22, 23, 24], [0, 1, 0, 1, 1])


def collated(rows: list[TokenRow], **changes: Any) -> MicroBatch:
    arguments: dict[str, Any] = {
        "padding": "longest",
        "padding_side": "right",
        "pad_token_id": PAD_ID,
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
    assert batch.input_ids.tolist() == [
        [10, 11, 12, PAD_ID, PAD_ID],
        [20, 21, 22, 23, 24],
    ]
    assert batch.position_ids[0, :3].tolist() == [0, 1, 2]
    assert batch.targets[0].tolist() == [IGNORED, 12, IGNORED, IGNORED, IGNORED]
    assert batch.attention_mask is not None
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.document_lengths is None
    assert (batch.num_tokens, batch.num_trainable_tokens) == (8, 4)


def test_left_padding_counts_positions_from_the_first_real_token() -> None:
    batch = collated([SHORT, LONG], padding_side="left")
    assert batch.input_ids[0].tolist() == [PAD_ID, PAD_ID, 10, 11, 12]
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
    ends_with_pad = token_row(0, [10, 11, PAD_ID], [0, 1, 1])
    batch = collated([ends_with_pad, LONG])
    assert batch.targets[0].tolist() == [11, PAD_ID, IGNORED, IGNORED, IGNORED]
    assert batch.attention_mask is not None
    assert batch.attention_mask[0].tolist() == [1, 1, 1, 0, 0]


def test_packed_rows_keep_their_documents() -> None:
    batch = collate_packed([[SHORT, LONG], [SHORT]])
    assert batch.document_lengths == (3, 5, 3)
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2]]
    assert batch.row_ids == (3, 8, 3)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_sees_each_row_once(packing: bool, batch_size: int) -> None:
    rows = many_rows(23)
    batches = list(eval_batches(rows, batch_size, replace(SMALL_BATCHING, packing=packing)))
    seen = [row_id for batch in batches for row_id in batch.row_ids]
    assert sorted(seen) == list(range(23))
    assert sum(b.num_trainable_tokens for b in batches) == sum(
        row.num_trainable_tokens for row in rows
    )
    if not packing:
        assert seen == list(range(23))
