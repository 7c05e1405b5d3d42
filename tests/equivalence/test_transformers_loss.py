"""Our loss and gradients are those of transformers' own `model(labels=…)` on the same batch."""

from __future__ import annotations

import pytest
import torch
from support.batches import (
    LAYOUTS,
    LossAndGradients,
    assert_same,
    loss_and_gradients,
    ragged_rows,
)
from support.models import packed_model
from support.tiny import ARCHITECTURES, tiny_model

from trimtab.data.rows import IGNORED


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[1]], ids=lambda layout: layout.name)
def test_loss_is_transformers_own(architecture: str, layout: object) -> None:
    rows = ragged_rows()
    theirs = tiny_model(architecture).train()
    ids = torch.full((len(rows), 32), 5)
    labels = torch.full((len(rows), 32), IGNORED)
    mask = torch.zeros((len(rows), 32), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : row.num_tokens] = torch.from_numpy(row.input_ids)
        mask[index, : row.num_tokens] = 1
        trained = torch.from_numpy(row.trainable)
        labels[index, : row.num_tokens][trained] = ids[index, : row.num_tokens][trained]
    loss = theirs(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    reference = LossAndGradients(
        float(loss.detach()),
        {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None},
    )
    ours = loss_and_gradients(packed_model(architecture), [layout.collate(rows)])  # type: ignore[attr-defined]
    assert_same(ours, reference, tolerance=1e-5)
