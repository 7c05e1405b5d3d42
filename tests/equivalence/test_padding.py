"""Padding left, right or to max_length, none, and packed rows give the same loss and gradients."""

from __future__ import annotations

import pytest
from support.batches import (
    LAYOUTS,
    Layout,
    assert_same,
    loss_and_gradients,
    packed_micro_batches,
    ragged_rows,
)
from support.models import packed_model
from support.tiny import ARCHITECTURES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layout", LAYOUTS[1:], ids=lambda layout: layout.name)
def test_layouts_agree(architecture: str, layout: Layout) -> None:
    rows = ragged_rows()
    model = packed_model(architecture)
    reference = loss_and_gradients(model, [LAYOUTS[0].collate(rows)])
    assert_same(loss_and_gradients(model, [layout.collate(rows)]), reference, tolerance=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_rows_agree(architecture: str) -> None:
    rows = ragged_rows()
    packed = packed_micro_batches(rows)
    order = [row_id for batch in packed for row_id in batch.row_ids]
    assert sorted(order) == list(range(len(rows)))
    assert order != sorted(order)
    assert len(packed) > 1
    assert any(len(batch.row_ids) > 1 for batch in packed)
    model = packed_model(architecture)
    reference = loss_and_gradients(model, [LAYOUTS[0].collate(rows)])
    assert_same(loss_and_gradients(model, packed), reference, tolerance=1e-5)


def test_pad_tokens_are_never_trained_on_nor_seen() -> None:
    rows = ragged_rows()
    padded = next(layout for layout in LAYOUTS if layout.name == "max_length right").collate(rows)
    assert padded.attention_mask is not None
    assert int(padded.attention_mask.sum()) == sum(row.num_tokens for row in rows)
    model = packed_model()
    before = loss_and_gradients(model, [padded])
    padded.input_ids[padded.attention_mask == 0] = 7
    assert_same(loss_and_gradients(model, [padded]), before, tolerance=1e-7)
