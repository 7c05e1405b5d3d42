from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from trimtab.models.short_attention import short_causal_attention


def inputs(num_heads: int, num_key_heads: int, length: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, heads, length, 16, generator=generator, dtype=dtype).requires_grad_()
        for heads in (num_heads, num_key_heads, num_key_heads)
    ]


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("length", [1, 2, 37])
@pytest.mark.parametrize(("num_heads", "num_key_heads"), [(4, 4), (6, 2), (3, 1)])
def test_outputs_and_gradients_are_those_of_torch(
    num_heads: int, num_key_heads: int, length: int, scaling: float | None
) -> None:
    ours = inputs(num_heads, num_key_heads, length, torch.float64)
    theirs = inputs(num_heads, num_key_heads, length, torch.float64)
    attended = short_causal_attention(ours[0], ours[1], ours[2], scaling)
    expected = scaled_dot_product_attention(*theirs, is_causal=True, scale=scaling, enable_gqa=True)
    assert torch.equal(attended, expected)
    upstream = torch.randn(attended.shape, generator=torch.Generator().manual_seed(1))
    attended.backward(upstream.double())
    expected.backward(upstream.double())
    for our, their in zip(ours, theirs, strict=True):
        assert our.grad is not None
        assert their.grad is not None
        assert torch.allclose(our.grad, their.grad, rtol=1e-5, atol=1e-6)


def test_bf16_gradients_are_no_further_from_the_truth_than_those_of_torch() -> None:
    exact = inputs(4, 2, 64, torch.float64)
    scaled_dot_product_attention(*exact, is_causal=True, enable_gqa=True).sum().backward()

    def error(gradients: list[Tensor]) -> float:
        return sum(
            float((one.grad.double() - true.grad).norm())  # type: ignore[union-attr, operator]
            for one, true in zip(gradients, exact, strict=True)
        )

    ours, theirs = ([one.detach().bfloat16().requires_grad_() for one in exact] for _ in "12")
    short_causal_attention(ours[0], ours[1], ours[2], None).sum().backward()
    scaled_dot_product_attention(*theirs, is_causal=True, enable_gqa=True).sum().backward()
    assert error(ours) <= 1.1 * error(theirs)
