from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from trimtab.models.adapters import add_lora, causal_model
from trimtab.models.description import head_is_plain
from trimtab.models.output_head import plain_head


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "gpt2", "gemma3_text"])
def test_the_head_is_found_under_adapters_too(load: Any, architecture: str) -> None:
    model = load(architecture)
    assert plain_head(model) is model.get_output_embeddings()
    adapted = add_lora(
        load(architecture), r=2, alpha=2.0, dropout=0.5, target_modules="all-linear", seed=0
    ).train()
    before = torch.get_rng_state()
    head = plain_head(adapted)
    assert head is causal_model(adapted).get_output_embeddings()
    assert torch.equal(torch.get_rng_state(), before)


def test_soft_capped_logits_are_not_the_heads_own(load: Any) -> None:
    model = copy.deepcopy(load("gemma3_text"))
    model.config.final_logit_softcapping = 30.0
    assert plain_head(model) is None


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * super().forward(x)


def test_a_head_that_does_more_than_a_product_is_not_plain(load: Any) -> None:
    model = load("gpt2")
    model.get_output_embeddings().__class__ = Scaled
    assert plain_head(model) is None


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("llama", {}),
        ("gemma2", {"final_logit_softcapping": 30.0, "head_dim": 16}),
        ("gemma2", {"final_logit_softcapping": None, "head_dim": 16}),
        ("granite", {"logits_scaling": 8.0}),
        ("granite", {"logits_scaling": 1.0}),
        ("cohere", {"logit_scale": 0.0625}),
    ],
    ids=str,
)
def test_the_configuration_tells_what_the_model_does(
    architecture: str, changes: dict[str, Any]
) -> None:
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(architecture, **sizes, **heads, **tokens, **changes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    assert (plain_head(model) is not None) == head_is_plain(config.to_dict())
