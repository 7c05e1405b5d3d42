"""Tokenizer and weights of a model that has been located."""

from __future__ import annotations

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from trimtab.errors import ConfigError, DoesNotFit
from trimtab.models.attention import IMPLEMENTATION, register_document_attention
from trimtab.models.quiet import quiet_transformers
from trimtab.models.source import ModelSource


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerFast:
    """The model's fast tokenizer. Raises ConfigError where it has none."""
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(
                source.folder, trust_remote_code=source.trust_remote_code
            )
    except (ValueError, OSError, ImportError, KeyError) as error:
        raise ConfigError(
            f"the tokenizer cannot be loaded: {error}", where=str(source.folder)
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConfigError(
            "the tokenizer has no fast version (tokenizer.json), which tells where each token "
            "stands in the text.",
            where=str(source.folder),
        )
    return tokenizer


def load_model(
    source: ModelSource, *, dtype: torch.dtype, device: torch.device, packed_attention: bool
) -> PreTrainedModel:
    """The model with its weights in `dtype` on `device`, its cache off.

    With `packed_attention` it takes rows that are joined end to end where its architecture can
    (`packing_refusal` tells), and padded ones too; without, transformers' own `sdpa`. Raises
    ConfigError for weights that cannot be loaded, DoesNotFit where memory is short.
    """
    try:
        with quiet_transformers():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                source.folder, dtype=dtype, trust_remote_code=source.trust_remote_code
            )
            _set_attention(model, packed_attention=packed_attention)
        model.to(device)
    except torch.OutOfMemoryError as error:
        raise DoesNotFit(
            f"the weights of {source.name} do not fit on {device}.",
            hint="Take a smaller model, or precision: bf16 with method: lora.",
        ) from error
    except (ValueError, OSError, ImportError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"the model cannot be loaded: {str(error).strip()}", where=str(source.folder)
        ) from error
    model.config.use_cache = False
    return model


def _set_attention(model: PreTrainedModel, *, packed_attention: bool) -> None:
    """Architectures that have no attention to choose keep what they have."""
    if packed_attention:
        register_document_attention()
    try:
        model.set_attn_implementation(IMPLEMENTATION if packed_attention else "sdpa")
    except (ValueError, ImportError):
        return
