from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PeftModel
from support.tiny import ARCHITECTURES, tiny_model
from torch import nn

from trimtab.errors import ConfigError
from trimtab.models.adapters import add_lora, causal_model, trainable_parameters

LORA: dict[str, Any] = {
    "r": 4,
    "alpha": 32.0,
    "dropout": 0.0,
    "target_modules": "all-linear",
    "seed": 7,
}


def adapted_modules(model: PeftModel) -> set[str]:
    return {
        name.partition(".lora_A")[0].removeprefix("base_model.model.")
        for name in trainable_parameters(model)
        if ".lora_A" in name
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_linear_is_every_linear_module_but_the_head(architecture: str, load: Any) -> None:
    model = load(architecture)
    matrices = {
        name.removesuffix(".weight")
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and not isinstance(model.get_submodule(name[:-7]), nn.Embedding)
    }
    adapted = add_lora(model, **LORA)
    assert adapted_modules(adapted) == matrices - {"lm_head"}


def test_adapters_are_fp32_beside_frozen_bf16_weights(load: Any) -> None:
    adapted = add_lora(load("llama", dtype=torch.bfloat16), **LORA)
    trained = trainable_parameters(adapted)
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    frozen = [value for name, value in adapted.named_parameters() if name not in trained]
    assert {parameter.dtype for parameter in frozen} == {torch.bfloat16}
    assert all("lora_" in name for name in trained)


def test_the_seed_alone_decides_the_values(load: Any) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = trainable_parameters(add_lora(load("llama"), **LORA))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = trainable_parameters(add_lora(load("llama"), **LORA))
    other = trainable_parameters(add_lora(load("llama"), **{**LORA, "seed": 8}))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_an_untrained_adapter_changes_nothing(load: Any) -> None:
    ids = torch.arange(6, 20)[None]
    with torch.no_grad():
        expected = load("qwen3")(input_ids=ids).logits
        assert torch.equal(add_lora(load("qwen3"), **LORA)(input_ids=ids).logits, expected)


def test_rank_scale_and_dropout_are_in_force(load: Any) -> None:
    adapted = add_lora(load("llama"), **{**LORA, "r": 3, "alpha": 6.0, "dropout": 0.25})
    layer: Any = causal_model(adapted).get_submodule("model.layers.0.self_attn.q_proj")
    assert layer.lora_A["default"].weight.shape == (3, 32)
    assert layer.scaling["default"] == 2.0
    assert layer.lora_dropout["default"].p == 0.25


def test_named_targets_only(load: Any) -> None:
    adapted = add_lora(load("llama"), **{**LORA, "target_modules": ("q_proj", "1.mlp.down_proj")})
    assert adapted_modules(adapted) == {
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.down_proj",
    }


@pytest.mark.parametrize("target", ["qproj", "mlp", "input_layernorm", "lm_head", "proj"])
def test_a_target_that_is_no_linear_module_is_refused(target: str, load: Any) -> None:
    with pytest.raises(ConfigError) as refusal:
        add_lora(load("llama"), **{**LORA, "target_modules": ("q_proj", target)})
    assert f"named {target}." in refusal.value.what
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in str(refusal.value)


def test_the_first_values_do_not_depend_on_the_frozen_weights_dtype() -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model = add_lora(tiny_model().to(dtype), **LORA)
        found.append({n: p for n, p in model.named_parameters() if "lora_" in n})
    for other in found[1:]:
        for name, parameter in found[0].items():
            assert other[name].dtype == torch.float32
            assert torch.equal(other[name], parameter), name


def test_the_written_targets_are_in_one_order_in_every_process(load: Any) -> None:
    targets = add_lora(load("llama"), **LORA).active_peft_config.target_modules
    assert len(targets) == 14
    assert list(targets) == sorted(targets)
