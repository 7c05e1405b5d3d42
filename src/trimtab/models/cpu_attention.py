"""Causal attention inside documents on a CPU, with a backward pass of plain products.

torch's own backward pass on a CPU takes two to four times as long as the products that it is made
of. Documents of about one length are computed together, a block of queries at a time.

Shapes: T positions of documents that lie end to end, H query heads, G key and value heads,
R = H ÷ G, D head size, E = D + 2; N documents of one group, padded to L positions (a multiple of
Q), Q positions of a block of queries, K positions that a block sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

BLOCK_LENGTH = 128
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def causal_documents_attention(
    query_THD: Tensor,
    key_TGD: Tensor,
    value_TGD: Tensor,
    lengths: tuple[int, ...],
    scaling: float | None,
) -> Tensor:
    """What `scaled_dot_product_attention` gives inside each document, [T, H, D]; no dropout.

    lengths: of the documents, in tokens; they add up to T. It is computed in the values' dtype;
    under autocast queries and keys may come in a wider one.

    The backward pass computes the probabilities again from the logarithms of their sums
    (FlashAttention, 2022, arXiv 2205.14135): [N · G, R · Q, K] at a time.
    """
    scale = query_THD.shape[-1] ** -0.5 if scaling is None else scaling
    dtype = value_TGD.dtype
    attended: Tensor = _CausalDocuments.apply(  # type: ignore[no-untyped-call]
        query_THD.to(dtype), key_TGD.to(dtype), value_TGD, _groups(lengths), scale
    )
    return attended


@lru_cache(maxsize=64)
def _groups(lengths: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Where documents of as many blocks have their positions, int64 [N, L]; T where padded."""
    starts = [0, *accumulate(lengths)]
    by_num_blocks: dict[int, list[Tensor]] = {}
    for start, length in zip(starts, lengths, strict=False):
        num_blocks = -(-length // BLOCK_LENGTH)
        positions_L = torch.full((num_blocks * BLOCK_LENGTH,), starts[-1])
        positions_L[:length] = torch.arange(start, start + length)
        by_num_blocks.setdefault(num_blocks, []).append(positions_L)
    return tuple(
        _without_unused_columns(torch.stack(rows), starts[-1])
        for _, rows in sorted(by_num_blocks.items())
    )


def _without_unused_columns(positions_NL: Tensor, padded: int) -> Tensor:
    is_used_L = (positions_NL != padded).any(0)
    return positions_NL[:, is_used_L].contiguous()


class _CausalDocuments(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, groups: Sequence[Tensor], scale: float
    ) -> Tensor:
        T, H, D = query.shape
        attended_THD = query.new_empty(T + 1, H, D)
        log_sums_TH = query.new_empty(T + 1, H, dtype=torch.promote_types(query.dtype, torch.float))
        for positions_NL in groups:
            # Padded positions come last and are nobody's keys, so any row will do.
            real_NL = positions_NL.clamp(max=T - 1)
            gathered = (_gathered(x, real_NL).transpose(1, 2) for x in (query, key, value))
            attended_NHLD, log_sums_NHL = _FLASH(*gathered, 0.0, True, scale=scale)
            positions = positions_NL.flatten()
            attended_THD.index_copy_(0, positions, attended_NHLD.transpose(1, 2).flatten(0, 1))
            log_sums_TH.index_copy_(0, positions, log_sums_NHL.transpose(1, 2).flatten(0, 1))
        attended: Tensor = attended_THD[:T]
        ctx.save_for_backward(query, key, value, attended, log_sums_TH[:T])
        ctx.groups, ctx.scale = groups, scale
        return attended

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_THD,) = gradients
        query_THD, key_TGD, value_TGD, attended_THD, log_sums_TH = ctx.saved_tensors
        inner_TH = (gradient_THD * attended_THD).sum(-1, dtype=log_sums_TH.dtype)
        sources = (
            _with_addend(query_THD, ctx.scale, -log_sums_TH),
            _with_ones(key_TGD),
            _with_ones(value_TGD),
            _with_addend(gradient_THD, 1.0, -inner_TH),
        )
        found = [x.new_empty(len(x) + 1, *x.shape[1:]) for x in (query_THD, key_TGD, value_TGD)]
        for positions_NL in ctx.groups:
            _write_gradients(positions_NL, sources, found)
        query_gradient, key_gradient, value_gradient = (x[:-1] for x in found)
        return query_gradient.mul_(ctx.scale), key_gradient, value_gradient, None, None


def _write_gradients(
    positions_NL: Tensor, sources: Sequence[Tensor], found: Sequence[Tensor]
) -> None:
    """Write the gradients of one group's queries, keys and values where its positions are."""
    query_THE, key_TGE, value_TGE, gradient_THE = sources
    N, L = positions_NL.shape
    H, G, D = query_THE.shape[1], key_TGE.shape[1], query_THE.shape[2] - 2
    key_NLE, value_NLE = (
        _gathered(x, positions_NL).transpose(1, 2).reshape(N * G, L, D + 2)
        for x in (key_TGE, value_TGE)
    )
    sums = _sum_dtype(key_NLE.dtype, L)
    key_gradient, value_gradient = key_NLE.new_zeros(2, N * G, L, D, dtype=sums)
    for start in range(0, L, BLOCK_LENGTH):
        block_NQ = positions_NL[:, start : start + BLOCK_LENGTH]
        Q = block_NQ.shape[1]
        stop = start + Q
        query, gradient = (_stacked(_gathered(x, block_NQ), G) for x in (query_THE, gradient_THE))
        key, value = key_NLE[:, :stop], value_NLE[:, :stop]
        weights = torch.bmm(query, key.mT).exp_()
        _drop_later_keys(weights.view(-1, Q, stop))
        value_gradient[:, :stop] += torch.bmm(weights.mT, gradient[..., :D])
        score_gradient = torch.bmm(gradient, value.mT).mul_(weights)
        key_gradient[:, :stop] += torch.bmm(score_gradient.mT, query[..., :D])
        query_gradient = torch.bmm(score_gradient, key[..., :D]).view(N, H, Q, D)
        found[0].index_copy_(0, block_NQ.flatten(), query_gradient.transpose(1, 2).flatten(0, 1))
    positions = positions_NL.flatten()
    for into, x in zip(found[1:], (key_gradient, value_gradient), strict=True):
        rows = x.view(N, G, L, D).transpose(1, 2).flatten(0, 1)
        into.index_copy_(0, positions, rows.to(into.dtype))


def _gathered(x_THE: Tensor, positions_NL: Tensor) -> Tensor:
    """The rows at the positions, [N, L, H, E]."""
    return x_THE.index_select(0, positions_NL.flatten()).view(*positions_NL.shape, *x_THE.shape[1:])


def _stacked(x_NQHE: Tensor, num_key_heads: int) -> Tensor:
    """The R query heads of a key head one after another, for one product: [N · G, R · Q, E]."""
    N, Q, H, E = x_NQHE.shape
    R = H // num_key_heads
    return x_NQHE.transpose(1, 2).reshape(N * num_key_heads, R * Q, E)


def _with_addend(x_THD: Tensor, scale: float, addend_TH: Tensor) -> Tensor:
    """`x · scale` with two columns that add `addend` to its products with rows that end in ones.

    What a product subtracts inside its sum is subtracted before rounding to 16 bits, which then
    costs the difference's own last bits; two columns hold the addend to twice the bits of one.
    """
    extended = _with_room(x_THD)
    T, _, D = x_THD.shape
    torch.mul(x_THD, scale, out=extended[:T, :, :D])
    high_TH = addend_TH.to(x_THD.dtype)
    extended[:T, :, D] = high_TH
    extended[:T, :, D + 1] = addend_TH - high_TH
    return extended


def _with_ones(x_TGD: Tensor) -> Tensor:
    extended = _with_room(x_TGD)
    T, _, D = x_TGD.shape
    extended[:T, :, :D] = x_TGD
    extended[:T, :, D:] = 1.0
    return extended


def _with_room(x_THD: Tensor) -> Tensor:
    """Room [T + 1, H, D + 2]; the last row is what padded positions hold: it adds nothing, and no
    product with it overflows."""
    T, H, D = x_THD.shape
    room = x_THD.new_empty(T + 1, H, D + 2)
    room[T] = 0.0
    return room


def _sum_dtype(dtype: torch.dtype, length: int) -> torch.dtype:
    """One block has nothing to add up; several are added in fp32 at the least."""
    return dtype if length <= BLOCK_LENGTH else torch.promote_types(dtype, torch.float32)


def _drop_later_keys(weights_MQK: Tensor) -> None:
    """A block's last Q keys are its own positions: each sees itself and the ones before."""
    length = weights_MQK.shape[1]
    later = torch.ones(length, length, dtype=torch.bool, device=weights_MQK.device).triu_(1)
    weights_MQK[..., -length:].masked_fill_(later, 0.0)
