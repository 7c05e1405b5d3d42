"""Tokenizer and weights of a model that has been located."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from trimtab.errors import ConfigError, DoesNotFit
from trimtab.models.attention import IMPLEMENTATION, register_document_attention
from trimtab.models.foreign import UNUSABLE_FILES, first_sentence
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.models.own_memory import take_out_of_files
from trimtab.models.quiet import quiet_transformers
from trimtab.models.rms_norm import take_faster_norms
from trimtab.models.source import ModelSource


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerFast:
    """The model's fast tokenizer. Raises ConfigError where it has none."""
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(
                source.folder, trust_remote_code=source.trust_remote_code
            )
    except UNUSABLE_FILES as error:
        raise ConfigError(
            f"the tokenizer cannot be loaded: {first_sentence(error)}", where=str(source.folder)
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
    """The model with its weights in `dtype` on `device`, its cache off, in evaluation mode.

    With `packed_attention` it takes rows that are joined end to end where its architecture can
    (`packing_refusal` tells), and padded ones too; without, the attention that transformers
    chooses. Raises ConfigError for weights that cannot be loaded or are not all there, DoesNotFit
    where memory is short.
    """
    try:
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source.folder,
                dtype=dtype,
                trust_remote_code=source.trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
            )
        model: PreTrainedModel = loaded[0].to(device)
        take_out_of_files(model)
    except UNUSABLE_FILES as error:
        if is_out_of_memory(error):
            raise _does_not_fit(source, dtype, device) from error
        raise ConfigError(
            f"the model cannot be loaded: {first_sentence(error)}",
            where=str(source.folder),
            hint="It must be a causal language model that transformers knows, whole.",
        ) from error
    _check_complete(source, loaded[1]["missing_keys"])
    model.config.use_cache = False
    take_faster_norms(model)
    if packed_attention:
        take_packed_attention(model)
    return model


def take_packed_attention(model: PreTrainedModel) -> None:
    """Let the model take joined rows, where its attention can be set at all."""
    if model._can_set_attn_implementation():
        register_document_attention()
        model.set_attn_implementation(IMPLEMENTATION)


def _check_complete(source: ModelSource, missing_keys: Iterable[str]) -> None:
    """transformers fills weights that are missing with random numbers and goes on."""
    missing = sorted(missing_keys)
    if missing:
        raise ConfigError(
            f"{len(missing)} of the weights that config.json asks for are not in the files, "
            f"{missing[0]} among them.",
            where=str(source.folder),
            hint="Fetch the model again.",
        )


def _does_not_fit(source: ModelSource, dtype: torch.dtype, device: torch.device) -> DoesNotFit:
    return DoesNotFit(
        f"the weights of {source.name} in {str(dtype).removeprefix('torch.')} do not fit on "
        f"{device}.",
        hint="Take a smaller model, or precision: bf16 with method: lora.",
    )
