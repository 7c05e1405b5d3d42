"""What the user came for, in the formats that transformers and peft load."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast

from trimtab.models.adapters import Model, causal_model
from trimtab.models.pad_token import end_of_turn_token_ids
from trimtab.models.quiet import quiet_transformers
from trimtab.models.source import ModelSource


def trainable_state(model: Model) -> dict[str, Tensor]:
    """The weights that training changes, by parameter name; tied ones once."""
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def load_trainable_state(model: Model, state: Mapping[str, Tensor]) -> None:
    """Put weights of `trainable_state` back. Raises ValueError where the names are not the same."""
    parameters = trainable_state(model)
    if parameters.keys() != state.keys():
        differing = sorted(parameters.keys() ^ state.keys())
        raise ValueError(f"the saved weights are of another model: {differing[:3]} …")
    for name, parameter in parameters.items():
        parameter.copy_(state[name])


def save_result(
    model: Model,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    base: ModelSource,
    chat_template: str | None,
    pad_token: str,
) -> None:
    """Write the adapter (peft's format) or the whole model (transformers') with its tokenizer.

    A model is written in its base's own dtype (fp32 masters are rounded to it), an adapter in
    fp32. Generation stops at the end-of-turn token that training taught.
    """
    with quiet_transformers():
        if isinstance(model, PeftModel):
            for config in model.peft_config.values():
                config.base_model_name_or_path = str(base.folder)
                config.inference_mode = True
            model.save_pretrained(folder, safe_serialization=True)
        else:
            _save_full(model, folder, base)
        saved = copy.deepcopy(tokenizer)
        saved.pad_token = pad_token
        if chat_template is not None:
            saved.chat_template = chat_template
        saved.save_pretrained(folder)
        _generation_config(model, saved).save_pretrained(folder)


def _save_full(model: Model, folder: Path, base: ModelSource) -> None:
    from transformers import AutoConfig

    causal = causal_model(model)
    declared = AutoConfig.from_pretrained(
        base.folder, trust_remote_code=base.trust_remote_code
    ).dtype
    dtype = declared if isinstance(declared, torch.dtype) else torch.float32
    tied = set(causal.all_tied_weights_keys)
    weights = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in causal.state_dict().items()
        if name not in tied
    }
    use_cache, trained_dtype = causal.config.use_cache, causal.config.dtype
    causal.config.use_cache, causal.config.dtype = True, dtype
    try:
        causal.save_pretrained(folder, state_dict=weights)
    finally:
        causal.config.use_cache, causal.config.dtype = use_cache, trained_dtype


def _generation_config(model: Model, tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    config: GenerationConfig = copy.deepcopy(causal_model(model).generation_config)
    declared = config.eos_token_id
    former = declared if isinstance(declared, list) else [] if declared is None else [declared]
    ends = list(dict.fromkeys([*end_of_turn_token_ids(tokenizer), *former]))
    config.eos_token_id = ends[0] if len(ends) == 1 else ends
    config.pad_token_id = tokenizer.pad_token_id
    return config
