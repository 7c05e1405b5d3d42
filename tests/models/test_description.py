from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny import ARCHITECTURES, save_tiny_model, tiny_model

from trimtab.errors import ConfigError
from trimtab.models.description import describe
from trimtab.models.source import ModelSource


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_counts_are_those_of_the_model(
    architecture: str, tiny_sources: dict[str, ModelSource]
) -> None:
    description = describe(tiny_sources[architecture])
    model = tiny_model(architecture)
    assert description.architecture == architecture
    assert description.num_parameters == sum(weight.numel() for weight in model.parameters())
    assert description.num_embedding_parameters == 320 * 32
    assert description.head_is_tied == model.config.tie_word_embeddings
    assert (description.num_layers, description.hidden_size) == (2, 32)
    assert (description.vocab_size, description.max_position_embeddings) == (320, 256)


def test_linear_modules_are_all_but_the_head(tiny_sources: dict[str, ModelSource]) -> None:
    assert set(describe(tiny_sources["qwen3"]).linear_modules) == {
        ("model.layers.0-1.self_attn.q_proj", 32, 32, 2),
        ("model.layers.0-1.self_attn.k_proj", 32, 16, 2),
        ("model.layers.0-1.self_attn.v_proj", 32, 16, 2),
        ("model.layers.0-1.self_attn.o_proj", 32, 32, 2),
        ("model.layers.0-1.mlp.gate_proj", 32, 64, 2),
        ("model.layers.0-1.mlp.up_proj", 32, 64, 2),
        ("model.layers.0-1.mlp.down_proj", 64, 32, 2),
    }
    assert set(describe(tiny_sources["gpt2"]).linear_modules) == {
        ("transformer.h.0-1.attn.c_attn", 32, 96, 2),
        ("transformer.h.0-1.attn.c_proj", 32, 32, 2),
        ("transformer.h.0-1.mlp.c_fc", 32, 128, 2),
        ("transformer.h.0-1.mlp.c_proj", 128, 32, 2),
    }


def test_no_weight_is_read(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert describe(ModelSource("tiny", tmp_path)).num_layers == 2


@pytest.mark.parametrize("changes", [{"model_type": "no-such"}, {"hidden_size": "wide"}])
def test_a_configuration_that_makes_no_model_is_named(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    save_tiny_model(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(ConfigError) as refusal:
        describe(ModelSource("tiny", tmp_path))
    assert refusal.value.where == str(file)
    assert "\n" not in str(refusal.value)


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ConfigError, match="causal language model"):
        describe(ModelSource("tiny", tmp_path))
