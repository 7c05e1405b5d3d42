"""The summed cross-entropy of a micro-batch at the positions that are trained on.

Shapes: B rows, L positions, K kept columns, M positions that are trained on, H features,
V vocabulary, R examples.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trimtab.data.rows import IGNORED, MicroBatch
from trimtab.engine.head_loss import head_losses, summed_head_loss
from trimtab.models.adapters import Model, causal_model
from trimtab.models.attention import document_arguments
from trimtab.models.compute_dtype import compute_dtype
from trimtab.models.output_head import plain_head


def summed_loss(model: Model, batch: MicroBatch) -> Tensor:
    """The negative log-likelihood in nats, summed over the batch's trainable tokens; fp32 scalar.

    Only positions that predict a trainable token reach the output head. Dividing by the trainable
    tokens of the whole weight update is the caller's: a mean of means would weight ragged
    micro-batches wrongly (transformers #34191).
    """
    head = _head_of_blocks(model)
    if head is not None:
        return summed_head_loss(head, *_hidden_and_targets(model, batch))
    return _whole_logits_loss(model, batch, "sum")


@torch.no_grad()
def summed_row_losses(model: Model, batch: MicroBatch) -> Tensor:
    """As `summed_loss`, for each example of the batch by itself; float64 [R], as `row_ids`.

    Without gradients.
    """
    row_of_M, column_of_M = (batch.targets != IGNORED).nonzero(as_tuple=True)
    num_rows = len(batch.targets)
    if batch.document_lengths is not None:
        ends_R = torch.tensor(batch.document_lengths, device=column_of_M.device).cumsum(0)
        row_of_M = torch.bucketize(column_of_M, ends_R, right=True)
        num_rows = len(ends_R)
    losses_M = _losses_at_targets(model, batch).double()
    return losses_M.new_zeros(num_rows).index_add_(0, row_of_M, losses_M)


def _losses_at_targets(model: Model, batch: MicroBatch) -> Tensor:
    """fp32 [M], row by row."""
    head = _head_of_blocks(model)
    if head is not None:
        return head_losses(head, *_hidden_and_targets(model, batch))
    losses_N = _whole_logits_loss(model, batch, "none")
    return losses_N[batch.targets[:, _kept_positions(batch)].flatten() != IGNORED]


def _head_of_blocks(model: Model) -> nn.Linear | None:
    """The head where its loss can be taken block by block; fp16 needs its loss scaled before."""
    head = plain_head(model)
    if head is None or compute_dtype(head.weight) == torch.float16:
        return None
    return head


def _hidden_and_targets(model: Model, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Last hidden states [M, H] at the positions that are trained on, and their targets [M]."""
    targets_N = batch.targets.flatten()
    kept_M = (targets_N != IGNORED).nonzero().squeeze(-1)
    hidden_BLH: Tensor = causal_model(model).base_model(**_arguments(batch)).last_hidden_state
    return hidden_BLH.flatten(0, 1).index_select(0, kept_M), targets_N[kept_M]


def _whole_logits_loss(model: Model, batch: MicroBatch, reduction: str) -> Tensor:
    """The sum of the losses, or those at each position of the kept columns, row by row."""
    kept_K = _kept_positions(batch)
    return cross_entropy(
        _logits_at(model, batch, kept_K).flatten(0, 1).float(),
        batch.targets[:, kept_K].flatten(),
        ignore_index=IGNORED,
        reduction=reduction,
    )


def _kept_positions(batch: MicroBatch) -> Tensor:
    """Indices [K] of the columns in which a row has a target."""
    return (batch.targets != IGNORED).any(dim=0).nonzero().squeeze(-1)


def _logits_at(model: Model, batch: MicroBatch, kept_K: Tensor) -> Tensor:
    """Logits [B, K, V] at the kept positions."""
    arguments = _arguments(batch)
    if accepts_logits_to_keep(model):
        arguments["logits_to_keep"] = kept_K
    # Not through peft's wrapper, which goes past the hooks that gather shards.
    logits: Tensor = causal_model(model)(**arguments).logits
    return logits if logits.shape[1] == kept_K.shape[0] else logits[:, kept_K]


def _arguments(batch: MicroBatch) -> dict[str, Any]:
    """What a model's forward pass over the batch is given."""
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "position_ids": batch.position_ids,
        "use_cache": False,
        **({} if batch.document_lengths is None else document_arguments(batch.document_lengths)),
    }


def accepts_logits_to_keep(model: Model) -> bool:
    """Whether the model computes logits at chosen positions only (transformers' argument)."""
    return "logits_to_keep" in inspect.signature(causal_model(model).forward).parameters
