"""The held-out loss, over all rows and of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from trimtab.data.rows import MicroBatch, TokenRow
from trimtab.engine.distributed import ALONE, Ranks
from trimtab.engine.loss import summed_loss, summed_row_losses
from trimtab.engine.precision import autocast
from trimtab.hyperparameters.config import Precision
from trimtab.models.adapters import Model


@dataclass(frozen=True, slots=True)
class Evaluation:
    """eval_loss: nats per trainable token over all held-out rows; seconds: what it took."""

    eval_loss: float
    num_tokens: int
    num_trainable_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RowLosses:
    """Held-out losses by row: nats summed over a row's trainable tokens, and how many these are.

    num_tokens: of all rows, those that are only read included.
    """

    row_ids: tuple[int, ...]
    losses: tuple[float, ...]
    num_trainable_tokens: tuple[int, ...]
    num_tokens: int


@torch.no_grad()
def evaluate(
    model: Model,
    batches: Iterable[MicroBatch],
    *,
    precision: Precision,
    device: torch.device,
    on_tokens: Callable[[int], None] | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """The loss over the batches of all ranks, each token weighted alike, so sizes do not matter.

    `on_tokens` is told the tokens of every batch as it is done, and may raise to stop. Raises
    ValueError without batches.
    """
    started = time.perf_counter()
    was_training = model.training
    model.eval()
    total_loss = torch.zeros((), dtype=torch.float64)
    num_tokens = num_trainable_tokens = 0
    try:
        for batch in batches:
            with ranks.failing_together(), autocast(precision, device):
                total_loss += summed_loss(model, batch.to(device)).double().cpu()
            num_tokens += batch.num_tokens
            num_trainable_tokens += batch.num_trainable_tokens
            if on_tokens is not None:
                on_tokens(batch.num_tokens)
    finally:
        model.train(was_training)
    sums = ranks.sum(float(total_loss), num_tokens, num_trainable_tokens)
    if sums[2] == 0:
        raise ValueError("no held-out token to evaluate on")
    return Evaluation(
        eval_loss=sums[0] / sums[2],
        num_tokens=round(sums[1]),
        num_trainable_tokens=round(sums[2]),
        seconds=time.perf_counter() - started,
    )


@torch.no_grad()
def row_losses(
    model: Model,
    rows: Sequence[TokenRow],
    batches: Iterable[MicroBatch],
    *,
    precision: Precision,
    device: torch.device,
    on_tokens: Callable[[int], None] | None = None,
) -> RowLosses:
    """The loss of each of the rows, in their order, whatever `batches` they were put in.

    `on_tokens` as for `evaluate`. A row's loss may not be finite.
    """
    was_training = model.training
    model.eval()
    found: dict[int, float] = {}
    try:
        for batch in batches:
            with autocast(precision, device):
                losses_R = summed_row_losses(model, batch.to(device))
            found.update(zip(batch.row_ids, losses_R.tolist(), strict=True))
            if on_tokens is not None:
                on_tokens(batch.num_tokens)
    finally:
        model.train(was_training)
    return RowLosses(
        row_ids=tuple(row.row_id for row in rows),
        losses=tuple(found[row.row_id] for row in rows),
        num_trainable_tokens=tuple(row.num_trainable_tokens for row in rows),
        num_tokens=sum(row.num_tokens for row in rows),
    )
