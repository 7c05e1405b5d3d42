"""The summed cross-entropy of a micro-batch at the positions that are trained on.

Shapes: B rows, L positions, K kept positions, V vocabulary, R examples.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trimtab.data.rows import IGNORED, MicroBatch
from trimtab.models.adapters import Model, causal_model
from trimtab.models.attention import document_arguments


def summed_loss(model: Model, batch: MicroBatch) -> Tensor:
    """The negative log-likelihood in nats, summed over the batch's trainable tokens; fp32 scalar.

    Only positions that predict a trainable token reach the output head; where the batch is padded,
    the columns in which any row does. Dividing by the trainable tokens of the whole weight update
    is the caller's: a mean of means would weight ragged micro-batches wrongly (transformers
    #34191).
    """
    kept_K = _kept_positions(batch)
    return cross_entropy(
        _logits_at(model, batch, kept_K).flatten(0, 1).float(),
        batch.targets[:, kept_K].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )


def summed_row_losses(model: Model, batch: MicroBatch) -> Tensor:
    """As `summed_loss`, for each example of the batch by itself; float64 [R], as `row_ids`."""
    kept_K = _kept_positions(batch)
    targets_BK = batch.targets[:, kept_K]
    losses_BK = cross_entropy(
        _logits_at(model, batch, kept_K).flatten(0, 1).float(),
        targets_BK.flatten(),
        ignore_index=IGNORED,
        reduction="none",
    ).view_as(targets_BK)
    losses_BK = losses_BK.double()
    if batch.document_lengths is None:
        return losses_BK.sum(dim=1)
    ends_R = torch.tensor(batch.document_lengths, device=kept_K.device).cumsum(0)
    row_of_K = torch.bucketize(kept_K, ends_R, right=True)
    return torch.zeros_like(ends_R, dtype=torch.float64).index_add_(0, row_of_K, losses_BK[0])


def _kept_positions(batch: MicroBatch) -> Tensor:
    """Indices [K] of the columns in which a row has a target."""
    return (batch.targets != IGNORED).any(dim=0).nonzero().squeeze(-1)


def _logits_at(model: Model, batch: MicroBatch, kept_K: Tensor) -> Tensor:
    """Logits [B, K, V] at the kept positions."""
    arguments = {} if batch.document_lengths is None else document_arguments(batch.document_lengths)
    if accepts_logits_to_keep(model):
        arguments["logits_to_keep"] = kept_K
    # Not through peft's wrapper, which goes past the hooks that gather shards.
    logits: Tensor = causal_model(model)(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
        **arguments,
    ).logits
    return logits if logits.shape[1] == kept_K.shape[0] else logits[:, kept_K]


def accepts_logits_to_keep(model: Model) -> bool:
    """Whether the model computes logits at chosen positions only (transformers' argument)."""
    return "logits_to_keep" in inspect.signature(causal_model(model).forward).parameters
