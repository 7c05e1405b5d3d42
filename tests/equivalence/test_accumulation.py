"""One update over B examples equals k micro-batches of B/k, on ragged lengths, in fp32."""

from __future__ import annotations

import pytest
from support.batches import LAYOUTS, Layout, assert_same, loss_and_gradients, ragged_rows
from support.models import packed_model
from support.tiny import ARCHITECTURES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[1]], ids=lambda layout: layout.name)
@pytest.mark.parametrize("num_micro_batches", [2, 4, 8])
def test_accumulation_equals_one_batch(
    architecture: str, layout: Layout, num_micro_batches: int
) -> None:
    rows = ragged_rows()
    size = len(rows) // num_micro_batches
    model = packed_model(architecture)
    whole = loss_and_gradients(model, [layout.collate(rows)])
    parts = [layout.collate(rows[start : start + size]) for start in range(0, len(rows), size)]
    assert len(parts) == num_micro_batches
    assert_same(loss_and_gradients(model, parts), whole, tolerance=1e-6)


def test_mean_of_means_would_be_seen() -> None:
    rows = ragged_rows()
    model = packed_model()
    whole = loss_and_gradients(model, [LAYOUTS[0].collate(rows)])
    means = [loss_and_gradients(model, [LAYOUTS[0].collate([row])]).loss for row in rows]
    assert abs(sum(means) / len(means) - whole.loss) > 1e-4
