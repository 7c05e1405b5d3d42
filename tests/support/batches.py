"""Ragged token rows, collated in every way, and one update's loss and gradients from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from trimtab.data.batches import Batching, collate
from trimtab.data.rows import IGNORED, MicroBatch, TokenRow
from trimtab.data.updates import DataPosition, updates
from trimtab.engine.loss import summed_loss
from trimtab.planning.micro_batches import MicroBatchSize

PAD_ID = 5
LENGTHS = (5, 17, 9, 30, 3, 12, 21, 8)


def ragged_rows(
    lengths: Sequence[int] = LENGTHS, *, vocabulary_size: int = 320, seed: int = 0
) -> list[TokenRow]:
    """Random rows of the given lengths; roughly the second half of each is trained on."""
    generator = np.random.default_rng(seed)
    rows = []
    for row_id, length in enumerate(lengths):
        trainable = np.arange(length) >= max(1, length // 2 - row_id % 3)
        ids = generator.integers(6, vocabulary_size, size=length).astype(np.int32)
        rows.append(TokenRow(row_id, ids, trainable))
    return rows


def size_of(batch: MicroBatch) -> MicroBatchSize:
    """The size of a micro-batch that is laid out already."""
    num_rows, length = batch.input_ids.shape
    lengths = batch.document_lengths or (length,) * num_rows
    return MicroBatchSize(
        num_tokens=num_rows * length,
        num_scored=int((batch.targets != IGNORED).sum()),
        sum_length_squared=sum(each**2 for each in lengths),
    )


@dataclass(frozen=True)
class Layout:
    """One way to lay rows out as a micro-batch."""

    name: str
    padding: Any = "none"
    padding_side: Any = "right"
    pad_to_multiple_of: int | None = None
    max_length: int = 64

    def collate(self, rows: Sequence[TokenRow]) -> MicroBatch:
        return collate(
            rows,
            padding=self.padding,
            padding_side=self.padding_side,
            pad_token_id=PAD_ID,
            pad_to_multiple_of=self.pad_to_multiple_of,
            max_length=self.max_length,
        )


LAYOUTS = (
    Layout("padding-free"),
    Layout("longest right", padding="longest"),
    Layout("longest left", padding="longest", padding_side="left"),
    Layout("longest multiple of 16", padding="longest", pad_to_multiple_of=16),
    Layout("max_length right", padding="max_length"),
    Layout("max_length left", padding="max_length", padding_side="left"),
)


SMALL_BATCHING = Batching(
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    packing=False,
    max_length=32,
    padding="none",
    padding_side="right",
    pad_token_id=PAD_ID,
    pad_to_multiple_of=None,
    data_seed=7,
)


def packed_micro_batches(rows: Sequence[TokenRow]) -> tuple[MicroBatch, ...]:
    """One update over all rows as training packs them: best-fit rows of 40 tokens, one a batch."""
    batching = replace(
        SMALL_BATCHING,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=len(rows),
        packing=True,
        max_length=40,
        data_seed=0,
    )
    return next(updates(rows, batching, DataPosition(0, 0))).micro_batches


@dataclass(frozen=True)
class LossAndGradients:
    """The mean loss in nats a trainable token, and every parameter's gradient of it."""

    loss: float
    gradients: dict[str, torch.Tensor] = field(repr=False)


def loss_and_gradients(model: nn.Module, batches: Sequence[MicroBatch]) -> LossAndGradients:
    num_trainable_tokens = sum(batch.num_trainable_tokens for batch in batches)
    model.zero_grad(set_to_none=True)
    total = 0.0
    for batch in batches:
        loss = summed_loss(model, batch) / num_trainable_tokens
        loss.backward()
        total += float(loss.detach())
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    model.zero_grad(set_to_none=True)
    return LossAndGradients(total, gradients)


def assert_same(actual: LossAndGradients, expected: LossAndGradients, *, tolerance: float) -> None:
    """Loss and every gradient agree, relative to the loss and the largest gradient."""
    assert abs(actual.loss - expected.loss) <= tolerance * abs(expected.loss)
    assert actual.gradients.keys() == expected.gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.gradients.values())
    for name, gradient in expected.gradients.items():
        difference = float((actual.gradients[name] - gradient).abs().max())
        assert difference <= tolerance * largest, (name, difference / largest)


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
