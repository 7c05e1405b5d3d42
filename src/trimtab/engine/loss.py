"""The summed cross-entropy of a micro-batch at the positions that are trained on.

Shapes: B rows, L positions, K kept positions, V vocabulary, N trainable positions.
"""

from __future__ import annotations

import inspect

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
    arguments = {} if batch.document_lengths is None else document_arguments(batch.document_lengths)
    kept_K = (batch.targets != IGNORED).any(dim=0).nonzero().squeeze(-1)
    if accepts_logits_to_keep(model):
        arguments["logits_to_keep"] = kept_K
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
        **arguments,
    ).logits
    if logits.shape[1] != kept_K.shape[0]:
        logits = logits[:, kept_K]
    targets_BK = batch.targets[:, kept_K]
    return cross_entropy(
        logits.flatten(0, 1).float(), targets_BK.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def accepts_logits_to_keep(model: Model) -> bool:
    """Whether the model computes logits at chosen positions only (transformers' argument)."""
    return "logits_to_keep" in inspect.signature(causal_model(model).forward).parameters
