from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from support.jobs import tiny_job
from support.settings import tiny_settings
from support.tiny import tiny_model
from torch import nn

from trimtab.engine.optimizer import make_optimizer, weight_groups
from trimtab.errors import ConfigError

HAS_PYTORCH_OPTIMIZER = importlib.util.find_spec("pytorch_optimizer") is not None
HAS_BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None
BUILT_IN = ("adamw", "adam", "sgd", "adafactor", "muon")


class OneMatrix(nn.Module):
    """A matrix, a bias, a norm and an embedding, with gradients set by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.linear = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)

    def set_gradients(self, value: float) -> None:
        for parameter in self.parameters():
            parameter.grad = torch.full_like(parameter, value)


def test_only_matrices_decay() -> None:
    groups = weight_groups(tiny_model("llama"))
    assert groups.decayed
    assert all("proj" in name for name in groups.decayed)
    assert any("embed_tokens" in name for name in groups.exempt)
    assert any("norm" in name for name in groups.exempt)


def test_head_tied_to_the_embedding_is_exempt_and_counted_once() -> None:
    model = tiny_model("llama")
    groups = weight_groups(model)
    assert "lm_head.weight" not in groups.decayed
    assert groups.num_decayed + groups.num_exempt == sum(p.numel() for p in model.parameters())


def test_frozen_weights_are_in_no_group() -> None:
    model = OneMatrix()
    model.embedding.requires_grad_(False)
    groups = weight_groups(model)
    assert set(groups.exempt) == {"linear.bias", "norm.weight", "norm.bias"}


def test_adamw_decay_is_decoupled() -> None:
    model = OneMatrix()
    before = model.linear.weight.detach().clone()
    bias = model.linear.bias.detach().clone()
    optimizer = make_optimizer(model, tiny_settings(optim="adamw", weight_decay=0.5))
    model.set_gradients(0.0)
    optimizer.step(0.1)
    assert torch.allclose(model.linear.weight, before * (1 - 0.1 * 0.5))
    assert torch.equal(model.linear.bias, bias)


def test_adam_decay_is_the_l2_term_in_the_gradient() -> None:
    model = OneMatrix()
    before = model.linear.weight.detach().clone()
    settings = tiny_settings(optim="adam", weight_decay=0.5, adam_epsilon=1e-12)
    optimizer = make_optimizer(model, settings)
    model.set_gradients(0.0)
    optimizer.step(0.1)
    assert torch.allclose(model.linear.weight, before - 0.1 * before.sign(), atol=1e-5)


def test_betas_and_epsilon_are_in_force() -> None:
    settings = tiny_settings(adam_beta1=0.5, adam_beta2=0.75, adam_epsilon=1.0)
    model = OneMatrix()
    before = model.linear.bias.detach().clone()
    optimizer = make_optimizer(model, settings)
    moment, square, expected = 0.0, 0.0, before.clone()
    for step, gradient in enumerate((2.0, -1.0), start=1):
        model.set_gradients(gradient)
        optimizer.step(0.1)
        moment = 0.5 * moment + 0.5 * gradient
        square = 0.75 * square + 0.25 * gradient**2
        corrected = (moment / (1 - 0.5**step)) / (math.sqrt(square / (1 - 0.75**step)) + 1.0)
        expected -= 0.1 * corrected
    assert torch.allclose(model.linear.bias, expected, atol=1e-6)


@pytest.mark.parametrize("optim", BUILT_IN)
def test_the_step_uses_the_rate_that_it_is_given(optim: str) -> None:
    moved = []
    for rate in (1e-3, 1e-2):
        torch.manual_seed(0)
        model = OneMatrix()
        before = model.linear.weight.detach().clone()
        optimizer = make_optimizer(model, tiny_settings(optim=optim, learning_rate=1.0))
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step(rate)
        moved.append(float((model.linear.weight.detach() - before).norm()))
    assert 3 < moved[1] / moved[0] < 30


def test_every_name_builds_another_optimizer() -> None:
    names = set()
    for optim in BUILT_IN:
        optimizer = make_optimizer(OneMatrix(), tiny_settings(optim=optim))
        names.add(tuple(type(each).__name__ for each in optimizer.optimizers))
    assert len(names) == len(BUILT_IN)


def test_muon_takes_matrices_and_leaves_the_rest_to_adamw() -> None:
    model = OneMatrix()
    muon, adamw = make_optimizer(model, tiny_settings(optim="muon")).optimizers
    assert [p.shape for group in muon.param_groups for p in group["params"]] == [(3, 3)]
    assert sum(len(group["params"]) for group in adamw.param_groups) == 4


def test_muon_leaves_nothing_to_adamw_where_adapters_are_trained(tmp_path: Path) -> None:
    (muon,) = tiny_job(tmp_path, optim="muon", method="lora").optimizer.optimizers
    assert type(muon) is torch.optim.Muon


@pytest.mark.parametrize(
    ("optim", "package", "is_installed"),
    [
        ("lion", "pytorch-optimizer", HAS_PYTORCH_OPTIMIZER),
        ("adamw_schedule_free", "pytorch-optimizer", HAS_PYTORCH_OPTIMIZER),
        ("adamw_8bit", "bitsandbytes", HAS_BITSANDBYTES),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_an_extra_trains_or_is_named(optim: str, package: str, is_installed: bool) -> None:
    model = OneMatrix()
    settings = tiny_settings(optim=optim)
    if not is_installed:
        with pytest.raises(ConfigError, match=package):
            make_optimizer(model, settings)
        return
    before = model.linear.weight.detach().clone()
    optimizer = make_optimizer(model, settings)
    model.set_gradients(1.0)
    optimizer.step(1e-2)
    assert not torch.equal(model.linear.weight, before)


@pytest.mark.skipif(not HAS_PYTORCH_OPTIMIZER, reason="pytorch-optimizer is not installed")
def test_schedule_free_evaluates_other_weights_than_it_trains() -> None:
    model = OneMatrix()
    optimizer = make_optimizer(model, tiny_settings(optim="adamw_schedule_free"))
    for _ in range(3):
        model.set_gradients(1.0)
        optimizer.step(1e-1)
    trained = model.linear.weight.detach().clone()
    optimizer.for_evaluation()
    assert not torch.allclose(model.linear.weight, trained)
    optimizer.for_training()
    assert torch.allclose(model.linear.weight, trained, atol=1e-6)
