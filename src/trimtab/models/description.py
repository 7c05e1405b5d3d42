"""How large a model is, from its configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from trimtab.errors import ConfigError
from trimtab.models.source import ModelSource
from trimtab.planning.module_names import folded, unfolded

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

LOGIT_KEYS: Final = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
)
"""What transformers' configurations call the caps and scales that logits meet after the head."""

LinearModule = tuple[str, int, int, int]
"""Name as `module_names.folded` has it, in_features, out_features, and how many that stands for."""


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Counts are of weights, tied ones once.

    num_embedding_parameters is the input embedding; `head_is_tied` says whether the output head
    shares it, `head_is_plain` whether logits leave as it made them, neither capped nor scaled.
    `linear_modules` are all but the head: what `all-linear` adapts.
    max_position_embeddings is None where the architecture sets no bound.
    """

    architecture: str
    num_parameters: int
    num_embedding_parameters: int
    head_is_tied: bool
    head_is_plain: bool
    num_layers: int
    hidden_size: int
    vocab_size: int
    max_position_embeddings: int | None
    linear_modules: tuple[LinearModule, ...]


def describe(source: ModelSource) -> ModelDescription:
    """Build the model on torch's meta device, where no weight is read, and count.

    Raises ConfigError where transformers knows no causal language model for the configuration.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from trimtab.models.foreign import UNUSABLE_FILES, first_sentence
    from trimtab.models.quiet import quiet_transformers

    try:
        with quiet_transformers(), torch.device("meta"):
            config = AutoConfig.from_pretrained(
                source.folder, trust_remote_code=source.trust_remote_code
            )
            built = AutoModelForCausalLM.from_config(
                config, trust_remote_code=source.trust_remote_code
            )
            model = cast("PreTrainedModel", built)
    except UNUSABLE_FILES as error:
        raise ConfigError(
            f"transformers cannot build a causal language model from it: {first_sentence(error)}",
            where=str(source.folder / "config.json"),
            hint="Name a text model that transformers' AutoModelForCausalLM knows.",
        ) from error
    text_config = config.get_text_config()
    embedding = cast("nn.Embedding", model.get_input_embeddings())
    head = cast("nn.Linear | None", model.get_output_embeddings())
    return ModelDescription(
        architecture=config.model_type,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_embedding_parameters=embedding.weight.numel(),
        head_is_tied=head is not None and head.weight is embedding.weight,
        head_is_plain=head_is_plain(text_config.to_dict()),
        num_layers=text_config.num_hidden_layers,
        hidden_size=text_config.hidden_size,
        vocab_size=embedding.weight.shape[0],
        max_position_embeddings=max_positions(config),
        linear_modules=grouped(_shapes(model)),
    )


def head_is_plain(text_config: Mapping[str, Any]) -> bool:
    """Whether the configuration names nothing that changes logits after the output head."""
    return all(text_config.get(key) in (None, 1) for key in LOGIT_KEYS)


def max_positions(config: PreTrainedConfig) -> int | None:
    """The longest row in tokens, None where the architecture sets no bound."""
    # Only there where there is a bound, and under other names behind transformers' own mapping.
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def grouped(shapes: Mapping[str, tuple[int, int]]) -> tuple[LinearModule, ...]:
    """Modules by their full names, given as (in_features, out_features)."""
    alike: dict[tuple[str, int, int], list[str]] = {}
    for name, shape in shapes.items():
        alike.setdefault((name.rpartition(".")[2], *shape), []).append(name)
    return tuple(
        (name, in_features, out_features, len(unfolded(name)))
        for (_, in_features, out_features), names in alike.items()
        for name in folded(names)
    )


def _shapes(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    from transformers.pytorch_utils import Conv1D

    from trimtab.models.adapters import linear_modules

    return {
        name: (module.nx, module.nf)
        if isinstance(module, Conv1D)
        else (module.in_features, module.out_features)
        for name, module in linear_modules(model)
    }
