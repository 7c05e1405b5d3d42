"""Headers and configuration tell what the built model has."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support.tiny import ARCHITECTURES, save_tiny_model, tiny_model

from trimtab.errors import ConfigError
from trimtab.models.description import ModelDescription, describe
from trimtab.models.light_description import describe_from_headers, tensor_shapes
from trimtab.models.source import ModelSource


def in_any_order(description: ModelDescription) -> ModelDescription:
    return replace(description, linear_modules=tuple(sorted(description.linear_modules)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_what_the_built_model_has(
    architecture: str, tiny_sources: dict[str, ModelSource]
) -> None:
    source = tiny_sources[architecture]
    assert in_any_order(describe_from_headers(source)) == in_any_order(describe(source))


def test_sharded_files(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    source = ModelSource("tiny", tmp_path)
    whole = describe_from_headers(source)
    shutil.rmtree(tmp_path)
    save_tiny_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    tiny_model().save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert in_any_order(describe_from_headers(source)) == in_any_order(whole)


def test_a_tied_head_that_is_stored_too_counts_once(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    source = ModelSource("tiny", tmp_path)
    expected = describe_from_headers(source)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert describe_from_headers(source) == expected


def test_buffers_of_older_files_are_no_parameters(tmp_path: Path) -> None:
    save_tiny_model(tmp_path, "gpt2")
    source = ModelSource("tiny", tmp_path)
    expected = describe_from_headers(source)
    weights = load_file(tmp_path / "model.safetensors")
    weights["transformer.h.0.attn.bias"] = weights["transformer.wte.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert describe_from_headers(source) == expected


def test_a_model_saved_from_its_base_has_the_names_of_the_whole(tmp_path: Path) -> None:
    save_tiny_model(tmp_path, "gpt2")
    (tmp_path / "model.safetensors").unlink()
    tiny_model("gpt2").transformer.save_pretrained(tmp_path)
    source = ModelSource("tiny", tmp_path)
    assert not any(name.startswith("transformer.") for name in tensor_shapes(tmp_path))
    assert in_any_order(describe_from_headers(source)) == in_any_order(describe(source))


def test_weights_without_an_embedding_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    save_file(
        {"patch.weight": tiny_model().lm_head.weight.detach()}, tmp_path / "model.safetensors"
    )
    with pytest.raises(ConfigError, match="no token embedding"):
        describe_from_headers(ModelSource("vit", tmp_path))
