from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners import lora
from torch import Tensor, nn

from trimtab.models.adapters import add_lora, trainable_parameters
from trimtab.models.lora_linear import AdaptedLinear, fuse_adapted_linears

ROWS = torch.arange(5, 45).reshape(2, 20)


def adapted(load: Any, architecture: str, dropout: float = 0.0, **named: Any) -> PeftModel:
    model = add_lora(
        load(architecture, **named),
        r=4,
        alpha=8.0,
        dropout=dropout,
        target_modules="all-linear",
        seed=0,
    )
    for name, parameter in trainable_parameters(model).items():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    return model.train()


def as_peft_does_it(model: PeftModel) -> PeftModel:
    other = copy.deepcopy(model)
    for module in other.modules():
        if type(module) is AdaptedLinear:
            module.__class__ = lora.Linear
    return other


def loss_and_gradients(model: PeftModel, **autocast: Any) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(3)
    with torch.autocast("cpu", **autocast):
        loss = model(input_ids=ROWS, labels=ROWS).loss
    loss.backward()
    gradients = {
        name: parameter.grad
        for name, parameter in trainable_parameters(model).items()
        if parameter.grad is not None
    }
    return loss.detach(), gradients


def relative_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    assert ours
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    return max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) / largest


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text", "mistral"])
def test_loss_and_gradients_are_those_of_peft(load: Any, architecture: str, dropout: float) -> None:
    model = adapted(load, architecture, dropout)
    assert any(type(module) is AdaptedLinear for module in model.modules())
    loss, gradients = loss_and_gradients(model, enabled=False)
    expected_loss, expected = loss_and_gradients(as_peft_does_it(model), enabled=False)
    assert torch.allclose(loss, expected_loss, rtol=1e-6)
    assert relative_difference(gradients, expected) < 1e-5


def test_in_bf16_they_differ_by_rounding_alone(load: Any) -> None:
    exact = loss_and_gradients(adapted(load, "llama"), enabled=False)[1]
    model = adapted(load, "llama", dtype=torch.bfloat16)
    theirs = loss_and_gradients(as_peft_does_it(model), dtype=torch.bfloat16)[1]
    ours = loss_and_gradients(model, dtype=torch.bfloat16)[1]
    assert {gradient.dtype for gradient in ours.values()} == {torch.float32}
    assert relative_difference(ours, exact) < 1.5 * relative_difference(theirs, exact)


def test_weights_in_another_dtype_than_is_computed_go_the_way_of_peft(load: Any) -> None:
    model = adapted(load, "llama")
    loss, gradients = loss_and_gradients(model, dtype=torch.bfloat16)
    expected_loss, expected = loss_and_gradients(as_peft_does_it(model), dtype=torch.bfloat16)
    assert torch.equal(loss, expected_loss)
    assert relative_difference(gradients, expected) == 0.0


def test_without_the_adapter_the_base_answers(load: Any) -> None:
    base = load("llama")
    with torch.no_grad():
        expected = base(ROWS).logits
        model = adapted(load, "llama").eval()
        assert not torch.allclose(model(ROWS).logits, expected)
        with model.disable_adapter():
            assert torch.equal(model(ROWS).logits, expected)


def test_conv1d_keeps_the_module_of_peft(load: Any) -> None:
    model = adapted(load, "gpt2")
    assert not any(type(module) is AdaptedLinear for module in model.modules())


def test_the_state_dict_is_that_of_peft(load: Any) -> None:
    model = adapted(load, "llama")
    plain = as_peft_does_it(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    fuse_adapted_linears(plain)
    assert torch.equal(model.eval()(ROWS).logits, plain.eval()(ROWS).logits)
