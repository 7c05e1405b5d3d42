"""How large a model is, from its configuration alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from trimtab.errors import ConfigError
from trimtab.models.quiet import quiet_transformers
from trimtab.models.source import ModelSource


@dataclass(frozen=True, slots=True)
class LinearModule:
    """All linear modules of one name suffix and shape; `count` of them."""

    suffix: str
    in_features: int
    out_features: int
    count: int


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Counts are of weights, tied ones once; `linear_modules` leave the output head out."""

    architecture: str
    num_parameters: int
    num_embedding_parameters: int
    num_layers: int
    hidden_size: int
    vocab_size: int
    max_position_embeddings: int
    linear_modules: tuple[LinearModule, ...]


def describe(source: ModelSource) -> ModelDescription:
    """Build the model on torch's meta device, where no weight is read, and count.

    Raises ConfigError where transformers knows no causal language model for the configuration.
    """
    try:
        with quiet_transformers(), torch.device("meta"):
            config = AutoConfig.from_pretrained(
                source.folder, trust_remote_code=source.trust_remote_code
            )
            model = AutoModelForCausalLM.from_config(
                config, trust_remote_code=source.trust_remote_code
            )
            # Meta tensors lose the tie between head and embedding; it is made again.
            model.tie_weights()
    except (ValueError, KeyError, OSError, ImportError) as error:
        raise ConfigError(
            f"transformers cannot build a causal language model from it: {error}",
            where=str(source.folder / "config.json"),
        ) from error
    text_config = config.get_text_config()
    embedding = model.get_input_embeddings()
    return ModelDescription(
        architecture=config.model_type,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_embedding_parameters=embedding.weight.numel(),
        num_layers=text_config.num_hidden_layers,
        hidden_size=text_config.hidden_size,
        vocab_size=embedding.weight.shape[0],
        max_position_embeddings=text_config.max_position_embeddings,
        linear_modules=_linear_modules(model),
    )


def _linear_modules(model: nn.Module) -> tuple[LinearModule, ...]:
    head = model.get_output_embeddings()  # type: ignore[operator]
    counts: Counter[tuple[str, int, int]] = Counter()
    for name, module in model.named_modules():
        suffix = name.rpartition(".")[2]
        if isinstance(module, nn.Linear) and module is not head:
            counts[suffix, module.in_features, module.out_features] += 1
        elif isinstance(module, Conv1D):
            counts[suffix, module.nx, module.nf] += 1
    return tuple(LinearModule(*shape, count) for shape, count in counts.items())
