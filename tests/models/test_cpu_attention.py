"""Attention inside documents on a CPU, against torch's own of each document."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from trimtab.models.cpu_attention import causal_documents_attention


def inputs(num_heads: int, num_key_heads: int, length: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(length, heads, 16, generator=generator, dtype=dtype).requires_grad_()
        for heads in (num_heads, num_key_heads, num_key_heads)
    ]


def by_torch(inputs: list[Tensor], lengths: tuple[int, ...], scaling: float | None) -> Tensor:
    return torch.cat(
        [
            scaled_dot_product_attention(
                *(each[stop - length : stop].transpose(0, 1)[None] for each in inputs),
                is_causal=True,
                scale=scaling,
                enable_gqa=True,
            )[0].transpose(0, 1)
            for length, stop in zip(lengths, accumulate(lengths), strict=True)
        ]
    )


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize(
    "lengths", [(1,), (2,), (37, 5), (128, 129, 1), (300, 12, 257, 140)], ids=str
)
@pytest.mark.parametrize(("num_heads", "num_key_heads"), [(4, 4), (6, 2), (3, 1)])
def test_outputs_and_gradients_are_those_of_torch(
    num_heads: int, num_key_heads: int, lengths: tuple[int, ...], scaling: float | None
) -> None:
    ours = inputs(num_heads, num_key_heads, sum(lengths), torch.float64)
    theirs = inputs(num_heads, num_key_heads, sum(lengths), torch.float64)
    attended = causal_documents_attention(ours[0], ours[1], ours[2], lengths, scaling)
    expected = by_torch(theirs, lengths, scaling)
    assert torch.allclose(attended, expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn(attended.shape, generator=torch.Generator().manual_seed(1))
    attended.backward(upstream.double())
    expected.backward(upstream.double())
    for our, their in zip(ours, theirs, strict=True):
        assert our.grad is not None
        assert their.grad is not None
        assert torch.allclose(our.grad, their.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("lengths", [(64,), (200, 90, 131)], ids=str)
def test_bf16_gradients_are_no_further_from_the_truth_than_those_of_torch(
    lengths: tuple[int, ...],
) -> None:
    exact = inputs(4, 2, sum(lengths), torch.float64)
    by_torch(exact, lengths, None).sum().backward()

    def error(gradients: list[Tensor]) -> float:
        return sum(
            float((one.grad.double() - true.grad).norm())  # type: ignore[union-attr, operator]
            for one, true in zip(gradients, exact, strict=True)
        )

    ours, theirs = ([one.detach().bfloat16().requires_grad_() for one in exact] for _ in "12")
    causal_documents_attention(ours[0], ours[1], ours[2], lengths, None).sum().backward()
    by_torch(theirs, lengths, None).sum().backward()
    assert error(ours) <= 1.1 * error(theirs)


def test_scores_far_apart_stay_finite() -> None:
    """Of a later key, or of another document's, a score may be far above what a row's sum holds."""
    query, key, value = inputs(2, 1, 150, torch.bfloat16)
    with torch.no_grad():
        key[100:] *= 300.0
        query *= 30.0
    attended = causal_documents_attention(query, key, value, (140, 10), None)
    attended.sum().backward()
    for each in (query, key, value):
        assert each.grad is not None
        assert bool(each.grad.isfinite().all())
