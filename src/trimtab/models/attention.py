"""Attention inside documents that lie end to end, through transformers' attention interface.

Shapes: B rows, H query heads, G key and value heads, L positions, T joined positions, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from trimtab.models.cpu_attention import causal_documents_attention

IMPLEMENTATION = "trimtab_documents"

_UNSUPPORTED_ARGUMENTS = ("softcap", "s_aux", "position_bias")


def document_arguments(document_lengths: tuple[int, ...]) -> dict[str, Any]:
    """The arguments of a model's forward pass over documents of these lengths, in tokens."""
    return {"document_lengths": document_lengths}


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

    Without `document_lengths` each row is one document. No [T, T] mask is built; a sliding window
    is attended to block by block. Padded batches (with `attention_mask`) and generation from a
    cache go to transformers' `sdpa`.

    Raises ValueError where the model asks for what scaled dot-product attention does not have:
    soft-capped logits, attention sinks, a position bias.
    """
    for name in _UNSUPPORTED_ARGUMENTS:
        if arguments.get(name) is not None:
            raise ValueError(f"attention with {name} cannot be kept inside documents")
    length = query_BHLD.shape[2]
    if attention_mask is not None or length != key_BGLD.shape[2]:
        attended: Tensor = sdpa_attention_forward(
            module, query_BHLD, key_BGLD, value_BGLD, attention_mask, dropout, scaling, **arguments
        )[0]
        return attended, None
    lengths = (length,) if document_lengths is None else document_lengths
    is_windowed = sliding_window is not None and max(lengths) > sliding_window
    if _has_plain_products(query_BHLD, value_BGLD, dropout) and not is_windowed:
        return _on_cpu(query_BHLD, key_BGLD, value_BGLD, lengths, scaling), None
    attended_documents = [
        block
        for query, key, value in zip(
            query_BHLD.split(lengths, dim=2),
            key_BGLD.split(lengths, dim=2),
            value_BGLD.split(lengths, dim=2),
            strict=True,
        )
        for block in _blocks(module, query, key, value, dropout, scaling, sliding_window)
    ]
    return torch.cat(attended_documents, dim=1), None


def _has_plain_products(query: Tensor, value: Tensor, dropout: float) -> bool:
    """Whether a backward pass will come that plain products do faster than torch's own."""
    is_for_training = query.requires_grad and dropout == 0.0
    return is_for_training and query.device.type == "cpu" and query.shape[-1] == value.shape[-1]


def _on_cpu(
    query_BHLD: Tensor,
    key_BGLD: Tensor,
    value_BGLD: Tensor,
    lengths: tuple[int, ...],
    scaling: float | None,
) -> Tensor:
    """The B rows one after another, so that documents of all of them are computed together."""
    B = query_BHLD.shape[0]
    query, key, value = (
        x.transpose(1, 2).flatten(0, 1) for x in (query_BHLD, key_BGLD, value_BGLD)
    )
    attended_THD = causal_documents_attention(query, key, value, lengths * B, scaling)
    return attended_THD.view(B, -1, *attended_THD.shape[1:])


def _blocks(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float,
    scaling: float | None,
    sliding_window: int | None,
) -> Iterator[Tensor]:
    """One document of every row as blocks [B, L', H, D]: one, or one per window where it is longer.

    A block of queries sees at most two windows of keys, so memory grows with the window and not
    with the square of the document.
    """
    length = query.shape[2]
    if sliding_window is None or length <= sliding_window:
        yield sdpa_attention_forward(
            module, query, key, value, None, dropout, scaling, is_causal=True
        )[0]
        return
    positions = torch.arange(length, device=query.device)
    for start in range(0, length, sliding_window):
        queries = slice(start, min(start + sliding_window, length))
        keys = slice(max(0, start - sliding_window + 1), queries.stop)
        distance = positions[queries, None] - positions[None, keys]
        seen = (distance >= 0) & (distance < sliding_window)
        yield sdpa_attention_forward(
            module,
            query[:, :, queries],
            key[:, :, keys],
            value[:, :, keys],
            seen[None, None],
            dropout,
            scaling,
            is_causal=False,
        )[0]


def document_mask(
    *, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **arguments: Any
) -> Tensor | None:
    """No mask where nothing is padded: `document_attention` knows the lengths and the window.

    Padded batches and generation from a cache get transformers' own mask.
    """
    if attention_mask is None and q_length == kv_length:
        return None
    mask: Tensor | None = sdpa_mask(
        q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **arguments
    )
    return mask


def register_document_attention() -> None:
    """Make `IMPLEMENTATION` a name that models accept as their attention."""
    AttentionInterface.register(IMPLEMENTATION, document_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, document_mask)
