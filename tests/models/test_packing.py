from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import ARCHITECTURES
from torch import Tensor
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, PreTrainedModel

from trimtab.models.attention import IMPLEMENTATION, document_attention
from trimtab.models.loading import load_model
from trimtab.models.packing import packing_refusal, packing_refusal_of, small_config
from trimtab.models.source import ModelSource, locate

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@pytest.fixture
def _attention_put_back() -> Iterator[None]:
    yield
    AttentionInterface.register(IMPLEMENTATION, document_attention)


def random_model(folder: Path, kind: str, **sizes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **sizes})
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return load_model(
        locate(str(folder), trust_remote_code=False),
        dtype=torch.float32,
        device=torch.device("cpu"),
        packed_attention=True,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_attention_that_keeps_documents_apart_passes(
    architecture: str, dtype: torch.dtype, load: Any
) -> None:
    assert packing_refusal(load(architecture, dtype=dtype)) is None


@pytest.mark.usefixtures("_attention_put_back")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_leak_is_caught(architecture: str, load: Any) -> None:
    def leaking(*arguments: Any, document_lengths: Any = None, **named: Any) -> Any:
        return document_attention(*arguments, **named)

    model = load(architecture)
    AttentionInterface.register(IMPLEMENTATION, leaking)
    refusal = packing_refusal(model)
    assert refusal is not None
    assert "changing one document moves the next one's logits" in refusal


@pytest.mark.usefixtures("_attention_put_back")
def test_a_window_that_is_ignored_is_caught(load: Any) -> None:
    def unbounded(*arguments: Any, sliding_window: Any = None, **named: Any) -> Any:
        return document_attention(*arguments, **named)

    model = load("mistral")
    AttentionInterface.register(IMPLEMENTATION, unbounded)
    assert "differ from those of each alone" in (packing_refusal(model) or "")


@pytest.mark.parametrize(
    ("kind", "sizes", "reason"),
    [
        ("mamba", {"state_size": 4}, "changing one document moves"),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, "layers of the kind conv"),
        ("gemma2", {}, "softcap"),
        ("bloom", {"n_layer": 2, "n_head": 4}, "does not take its attention"),
    ],
)
def test_what_cannot_keep_documents_apart_is_refused_with_a_reason(
    kind: str, sizes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    refusal = packing_refusal(random_model(tmp_path, kind, **sizes))
    assert refusal is not None
    assert kind in refusal
    assert reason in refusal


def test_it_leaves_everything_as_it_was(load: Any) -> None:
    model = load("llama").train()
    before = torch.get_rng_state()
    assert packing_refusal(model) is None
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert model.config._attn_implementation == IMPLEMENTATION
    gradients: list[Tensor | None] = [parameter.grad for parameter in model.parameters()]
    assert gradients == [None] * len(gradients)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_small_model_of_the_configuration_passes(
    architecture: str, tiny_sources: dict[str, ModelSource]
) -> None:
    before = torch.get_rng_state()
    assert packing_refusal_of(tiny_sources[architecture]) is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("_attention_put_back")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_leak_shows_in_the_small_model(
    architecture: str, tiny_sources: dict[str, ModelSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaking(*arguments: Any, document_lengths: Any = None, **named: Any) -> Any:
        return document_attention(*arguments, **named)

    monkeypatch.setattr("trimtab.models.attention.document_attention", leaking)
    refusal = packing_refusal_of(tiny_sources[architecture])
    assert "changing one document moves the next one's logits" in (refusal or "")


@pytest.mark.usefixtures("_attention_put_back")
def test_an_ignored_window_of_many_tokens_shows_in_the_small_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unbounded(*arguments: Any, sliding_window: Any = None, **named: Any) -> Any:
        return document_attention(*arguments, **named)

    monkeypatch.setattr("trimtab.models.attention.document_attention", unbounded)
    sizes = {**SIZES, "sliding_window": 4096}
    AutoConfig.for_model("mistral", **sizes).save_pretrained(tmp_path)
    refusal = packing_refusal_of(ModelSource("mistral", tmp_path))
    assert "differ from those of each alone" in (refusal or "")


@pytest.mark.parametrize(
    ("kind", "sizes", "reason"),
    [
        ("mamba", {"state_size": 4}, "changing one document moves"),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, "layers of the kind conv"),
        ("gemma2", {}, "softcap"),
        ("bloom", {"n_layer": 2, "n_head": 4}, "does not take its attention"),
    ],
)
def test_a_configuration_alone_is_refused_with_a_reason(
    kind: str, sizes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    AutoConfig.for_model(kind, **{**SIZES, **sizes}).save_pretrained(tmp_path)
    assert reason in (packing_refusal_of(ModelSource(kind, tmp_path)) or "")


def test_the_small_model_keeps_every_kind_of_layer() -> None:
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    config = AutoConfig.for_model(
        "gemma3_text", **{**SIZES, "num_hidden_layers": 12}, layer_types=kinds * 2
    )
    small = small_config(config)
    assert small.layer_types == ["sliding_attention", "full_attention"]
    assert small.num_hidden_layers == 2
    assert config.num_hidden_layers == 12


def test_a_small_model_is_small_whatever_the_names_of_its_sizes() -> None:
    small = small_config(AutoConfig.for_model("gpt2", n_layer=48, vocab_size=50_257))
    assert (small.n_layer, small.vocab_size) == (2, 256)
    assert small.eos_token_id < 256
