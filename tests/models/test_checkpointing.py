from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny import ARCHITECTURES
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.errors import ConfigError
from trimtab.models.adapters import add_lora, trainable_parameters
from trimtab.models.attention import document_arguments
from trimtab.models.checkpointing import set_activation_checkpointing

LENGTHS = (9, 14)


def gradients(model: Any) -> tuple[dict[str, Tensor], int]:
    """The gradients of one joined row, and how often an MLP ran on the way."""
    num_runs = 0

    def count(*_: Any) -> None:
        nonlocal num_runs
        num_runs += 1

    hooks = [
        module.register_forward_pre_hook(count)
        for name, module in model.named_modules()
        if name.endswith(".mlp")
    ]
    ids = torch.randint(320, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(0))
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    torch.manual_seed(5)
    model.train()
    logits = model(input_ids=ids, position_ids=positions, **document_arguments(LENGTHS)).logits
    logits.float().square().mean().backward()
    for hook in hooks:
        hook.remove()
    found = {}
    for name, parameter in trainable_parameters(model).items():
        assert parameter.grad is not None, name
        found[name] = parameter.grad
        parameter.grad = None
    return found, num_runs


@pytest.mark.parametrize("every", ["full", 1, 2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_gradients_are_those_without(architecture: str, method: str, every: Any, load: Any) -> None:
    model = load(architecture)
    if method == "lora":
        model = add_lora(model, r=2, alpha=8.0, dropout=0.5, target_modules="all-linear", seed=1)
        with torch.no_grad():
            for name, parameter in trainable_parameters(model).items():
                if "lora_B" in name:
                    parameter.fill_(0.01)
    expected, num_plain = gradients(model)
    num_layers = set_activation_checkpointing(model, every)
    assert num_layers == (1 if every == 2 else 2)
    actual, num_recomputing = gradients(model)
    assert num_recomputing == num_plain + num_layers
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, atol=1e-8, rtol=1e-5)
    assert set_activation_checkpointing(model, "off") == 0
    assert gradients(model)[1] == num_plain


def test_a_model_that_cannot_recompute_is_refused() -> None:
    config = AutoConfig.for_model("bloom", vocab_size=32, hidden_size=16, n_layer=1, n_head=2)
    model = AutoModelForCausalLM.from_config(config)
    for name, module in model.transformer.named_children():
        if name == "h":
            model.transformer.h = torch.nn.ModuleList(torch.nn.Identity() for _ in module)
    with pytest.raises(ConfigError, match="bloom has no layer that can recompute"):
        set_activation_checkpointing(model, "full")
    assert set_activation_checkpointing(model, "off") == 0
