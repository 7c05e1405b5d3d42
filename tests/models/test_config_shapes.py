from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from trimtab.errors import ConfigError
from trimtab.models.config_shapes import LLAMA_LIKE, shapes_from_config
from trimtab.models.description import describe
from trimtab.models.light_description import describe_from_config
from trimtab.models.source import ModelSource

SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 256,
}
CHANGES: list[dict[str, Any]] = [
    {},
    {"tie_word_embeddings": True},
    {"head_dim": 16, "attention_bias": True, "mlp_bias": True},
]


@pytest.mark.parametrize("changes", CHANGES, ids=["plain", "tied", "biased"])
@pytest.mark.parametrize("architecture", sorted(LLAMA_LIKE))
def test_counts_are_those_of_the_built_model(
    architecture: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    AutoConfig.for_model(architecture, **(SIZES | changes)).save_pretrained(tmp_path)
    source = ModelSource("m", tmp_path)
    light, built = describe_from_config(source), describe(source)
    assert sorted(light.linear_modules) == sorted(built.linear_modules)
    for name in ("num_parameters", "num_embedding_parameters", "head_is_tied", "num_layers"):
        assert getattr(light, name) == getattr(built, name), name
    assert light.max_position_embeddings == built.max_position_embeddings


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'mamba' are not known"):
        shapes_from_config({"model_type": "mamba"}, tmp_path / "config.json")


def test_a_missing_size_is_named(tmp_path: Path) -> None:
    sizes = {key: value for key, value in SIZES.items() if key != "intermediate_size"}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama", **sizes}), encoding="utf-8")
    with pytest.raises(ConfigError, match="intermediate_size is None"):
        describe_from_config(ModelSource("m", tmp_path))
