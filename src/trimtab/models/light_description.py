"""How large a model is, from config.json and the headers of its weight files, without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from trimtab.errors import ConfigError
from trimtab.models.config_shapes import shapes_from_config
from trimtab.models.description import (
    LinearModule,
    ModelDescription,
    grouped,
    head_is_plain,
)
from trimtab.models.safety import read_json, weight_files
from trimtab.models.source import ModelSource

TRANSPOSED: Final = frozenset({"gpt2", "openai-gpt"})
"""Architectures that keep linear weights as [in_features, out_features]."""
BASE_PREFIXES: Final = {"bloom": "transformer", "gpt2": "transformer"}
"""What a model calls its base, of which the hub's files of these architectures were saved."""
BUFFERS: Final = (".inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias")
"""Ends of the names of tensors that some files hold and no optimizer trains."""
EMBEDDINGS: Final = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")
HEADS: Final = ("lm_head", "embed_out", "output")
NUM_LAYERS_KEYS: Final = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
HIDDEN_SIZE_KEYS: Final = ("hidden_size", "n_embd", "d_model", "dim")
MAX_POSITIONS_KEYS: Final = ("max_position_embeddings", "n_positions", "max_seq_len")

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each tensor by its name."""


def describe_from_headers(source: ModelSource) -> ModelDescription:
    """What `describe` counts, as far as names and shapes in the files tell it.

    Experts that the files keep one by one count as linear modules each. Raises ConfigError where
    no embedding is found.
    """
    config = read_json(source.folder / "config.json")
    shapes = {
        name: shape
        for name, shape in tensor_shapes(source.folder).items()
        if not name.endswith(BUFFERS)
    }
    return _described(config, _with_base_prefix(shapes, str(config.get("model_type"))), source)


def _with_base_prefix(shapes: Shapes, model_type: str) -> Shapes:
    """The names of the whole model where the files were saved from its base alone."""
    prefix = BASE_PREFIXES.get(model_type)
    if prefix is None or any(name.startswith(f"{prefix}.") for name in shapes):
        return shapes
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def describe_from_config(source: ModelSource) -> ModelDescription:
    """The same of a folder that has no weights, as far as config.json tells it.

    Raises ConfigError for an architecture that is not laid out as llama is.
    """
    path = source.folder / "config.json"
    config = read_json(path)
    return _described(config, shapes_from_config(config.get("text_config", config), path), source)


def _described(config: Mapping[str, Any], shapes: Shapes, source: ModelSource) -> ModelDescription:
    text_config = config.get("text_config", config)
    embedding = _embedding(shapes, source)
    head = next((name for name in shapes if _module(name) in HEADS), None)
    is_tied = head is None or bool(text_config.get("tie_word_embeddings"))
    vocab_size, width = shapes[embedding]
    counted = {name: shape for name, shape in shapes.items() if not (is_tied and name == head)}
    indices = {index for name in shapes if (index := _layer_index(name)) is not None}
    return ModelDescription(
        architecture=str(config.get("model_type", "unknown")),
        num_parameters=sum(math.prod(shape) for shape in counted.values()),
        num_embedding_parameters=vocab_size * width,
        head_is_tied=is_tied,
        head_is_plain=head_is_plain(text_config),
        num_layers=_first_number(text_config, NUM_LAYERS_KEYS) or len(indices),
        hidden_size=_first_number(text_config, HIDDEN_SIZE_KEYS) or width,
        vocab_size=vocab_size,
        max_position_embeddings=_first_number(text_config, MAX_POSITIONS_KEYS),
        linear_modules=_linear_modules(
            counted, is_transposed=config.get("model_type") in TRANSPOSED
        ),
    )


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a folder's safetensors files, of which only the headers are read.

    A file begins with the length of its header, 8 bytes little-endian, and the header, a JSON
    object (the format of safetensors).
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        shapes |= {
            name: tuple(tensor["shape"])
            for name, tensor in header.items()
            if name != "__metadata__"
        }
    return shapes


def _embedding(shapes: Shapes, source: ModelSource) -> str:
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    for known in EMBEDDINGS:
        for name in matrices:
            if _module(name) == known:
                return name
    raise ConfigError(
        "no token embedding is found among the names of its weights.",
        where=str(source.folder),
        hint="Plan without --quick, which builds the model.",
    )


def _linear_modules(shapes: Shapes, *, is_transposed: bool) -> tuple[LinearModule, ...]:
    linear = {
        name.removesuffix(".weight"): shape
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2 and _layer_index(name) is not None
    }
    return grouped({name: (a, b) if is_transposed else (b, a) for name, (a, b) in linear.items()})


def _module(name: str) -> str:
    """`q_proj` of `model.layers.0.self_attn.q_proj.weight`."""
    return name.removesuffix(".weight").rpartition(".")[2]


def _layer_index(name: str) -> int | None:
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _first_number(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((int(config[key]) for key in keys if isinstance(config.get(key), int)), None)
