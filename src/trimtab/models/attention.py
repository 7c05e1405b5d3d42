"""Attention inside documents that lie end to end, through transformers' attention interface.

Shapes: B rows, H query heads, G key and value heads, L positions, T joined positions, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION = "trimtab_documents"


def document_arguments(document_lengths: tuple[int, ...]) -> dict[str, Any]:
    """The arguments of a model's forward pass over joined documents of these lengths."""
    return {"document_lengths": document_lengths}


def register_document_attention() -> None:
    """Make `IMPLEMENTATION` a name that `attn_implementation` accepts."""
    AttentionInterface.register(IMPLEMENTATION, document_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, document_mask)


def document_mask(
    *, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **arguments: Any
) -> Tensor | None:
    """No mask where nothing is padded: documents are told apart by their lengths instead.

    Padded batches and generation with a cache get transformers' own mask.
    """
    if attention_mask is None and q_length == kv_length:
        return None
    mask: Tensor | None = sdpa_mask(
        q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **arguments
    )
    return mask


def document_attention(
    module: nn.Module,
    query_BHLD: Tensor,
    key_BGLD: Tensor,
    value_BGLD: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    document_lengths: tuple[int, ...] | None = None,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """Causal attention in which a document never sees another; returns [B, L, H, D].

    No [T, T] mask is ever built. With an `attention_mask` (a padded batch) it is transformers'
    `sdpa`. Raises ValueError for soft-capped logits, which the fused kernels do not have.
    """
    if arguments.get("softcap") is not None:
        raise ValueError("soft-capped attention logits are not supported for joined rows")
    if attention_mask is not None or query_BHLD.shape[2] != key_BGLD.shape[2]:
        output: Tensor = sdpa_attention_forward(
            module, query_BHLD, key_BGLD, value_BGLD, attention_mask, dropout, scaling, **arguments
        )[0]
        return output, None
    lengths = (query_BHLD.shape[2],) if document_lengths is None else document_lengths
    num_groups = query_BHLD.shape[1] // key_BGLD.shape[1]
    if num_groups > 1:
        key_BGLD = key_BGLD.repeat_interleave(num_groups, dim=1)
        value_BGLD = value_BGLD.repeat_interleave(num_groups, dim=1)
    outputs = [
        _causal(query, key, value, dropout, scaling, sliding_window)
        for query, key, value in zip(
            query_BHLD.split(lengths, dim=2),
            key_BGLD.split(lengths, dim=2),
            value_BGLD.split(lengths, dim=2),
            strict=True,
        )
    ]
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
    return joined.transpose(1, 2).contiguous(), None


def _causal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    scaling: float | None,
    sliding_window: int | None,
) -> Tensor:
    """One document of every row; a window that is at least as long as it changes nothing."""
    length = query.shape[2]
    if sliding_window is None or length <= sliding_window:
        return scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True, scale=scaling
        )
    positions = torch.arange(length, device=query.device)
    distance = positions[:, None] - positions[None, :]
    mask = (distance >= 0) & (distance < sliding_window)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling
    )
