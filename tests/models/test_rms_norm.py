from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trimtab.models.rms_norm import root_mean_square_norm, take_faster_norms

EPSILON = 1e-5
FASTER = {"llama", "qwen3", "mistral"}
ROWS = torch.arange(5, 45).reshape(2, 20)


def as_llama_does_it(x: Tensor, weight: Tensor) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPSILON)
    return weight * normed.to(x.dtype)


def output_and_gradients(norm: Any, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, weight, gradient = (
        torch.randn(*shape, generator=generator).to(torch.bfloat16).to(dtype)
        for shape in ((3, 50, 96), (96,), (3, 50, 96))
    )
    x.requires_grad_()
    weight.requires_grad_()
    out = norm(x, weight)
    out.backward(gradient)
    assert x.grad is not None
    assert weight.grad is not None
    return [out.detach(), x.grad, weight.grad]


def relative_errors(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    return [float((x.double() - y).norm() / y.norm()) for x, y in zip(found, exact, strict=True)]


def ours(x: Tensor, weight: Tensor) -> Tensor:
    return root_mean_square_norm(x, weight, EPSILON)


def test_in_fp32_it_is_the_norm_and_its_gradient() -> None:
    exact = output_and_gradients(as_llama_does_it, torch.float64)
    assert max(relative_errors(output_and_gradients(ours, torch.float32), exact)) < 1e-6


def test_in_bf16_it_is_as_near_as_what_it_stands_for() -> None:
    exact = output_and_gradients(as_llama_does_it, torch.float64)
    found = relative_errors(output_and_gradients(ours, torch.bfloat16), exact)
    theirs = relative_errors(output_and_gradients(as_llama_does_it, torch.bfloat16), exact)
    for our_error, their_error in zip(found, theirs, strict=True):
        assert our_error < 1.1 * their_error


def plainly(model: PreTrainedModel) -> PreTrainedModel:
    """A copy whose modules are of the classes that transformers gave them."""
    other = copy.deepcopy(model)
    for module in other.modules():
        if type(module).__mro__[1].__name__ == type(module).__name__:
            module.__class__ = type(module).__mro__[1]
    return other


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "gemma3_text", "gpt2"])
def test_models_keep_their_losses_and_gradients(load: Any, architecture: str) -> None:
    model = load(architecture).train()
    plain = plainly(model)
    has_faster = [*map(type, model.modules())] != [*map(type, plain.modules())]
    assert has_faster == (architecture in FASTER)
    for each in (model, plain):
        each(input_ids=ROWS, labels=ROWS).loss.backward()
    largest = max(float(p.grad.abs().max()) for p in plain.parameters() if p.grad is not None)
    for (name, p), (other_name, q) in zip(
        model.named_parameters(), plain.named_parameters(), strict=True
    ):
        assert name == other_name
        assert float((p.grad - q.grad).abs().max()) < 1e-5 * largest


class OneMore(nn.Module):
    """Gemma's habit: weights are added to one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8))
        self.variance_epsilon = EPSILON

    def forward(self, x: Tensor) -> Tensor:
        return as_llama_does_it(x, 1.0 + self.weight)


def test_a_norm_that_only_looks_alike_is_left_alone() -> None:
    model = nn.ModuleList([OneMore()])
    take_faster_norms(model)
    assert type(model[0]) is OneMore
    assert torch.equal(model[0].weight, torch.zeros(8))


def test_weights_in_another_dtype_than_the_input_go_the_plain_way(load: Any) -> None:
    model = load("llama")
    norm = next(m for name, m in model.named_modules() if name.endswith("input_layernorm"))
    x = torch.randn(4, len(norm.weight)).bfloat16()
    assert norm(x).dtype == torch.float32
