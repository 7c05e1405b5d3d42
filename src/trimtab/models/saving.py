"""What the user came for, in the formats that transformers and peft load."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

from peft import PeftModel
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from trimtab.models.adapters import Model, causal_model
from trimtab.models.disk_errors import raised_as_os_error
from trimtab.models.pad_token import end_of_turn_token_ids
from trimtab.models.quiet import quiet_transformers
from trimtab.models.source import ModelSource


def save_result(
    model: Model,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    base: ModelSource,
    chat_template: str | None,
    pad_token: str,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the adapter (peft's format) or the whole model (transformers') with its tokenizer.

    Weights keep the dtype that the model holds them in, so that what is loaded again is what was
    evaluated. An adapter names its base by folder. `chat_template` is the one that training
    used, None where it used none: the tokenizer then keeps its own. Generation stops at the end
    of turn that training taught, and at what the base stopped at. `weights` are the trained ones
    in whole, by the model's names, where the model itself holds shards.

    Raises OSError where the folder cannot be written.
    """
    saved = copy.deepcopy(tokenizer)
    saved.pad_token = pad_token
    if chat_template is not None:
        saved.chat_template = chat_template
    taught = () if chat_template is None else end_of_turn_token_ids(saved, chat_template)
    generation_config = _generation_config(causal_model(model), taught, saved.pad_token_id)
    with quiet_transformers(), raised_as_os_error():
        if isinstance(model, PeftModel):
            model.active_peft_config.base_model_name_or_path = str(base.folder)
            state = None if weights is None else dict(weights)
            model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=state)
            # peft's model card is a form with nothing filled in.
            (folder / "README.md").unlink()
        else:
            _save_full(model, folder, generation_config, weights)
        saved.save_pretrained(folder)
        generation_config.save_pretrained(folder)


def save_merged(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, result: Path
) -> None:
    """Write a whole model with its tokenizer, and the generation config of the run's `result`.

    Raises OSError where the folder cannot be written.
    """
    generation_config = GenerationConfig.from_pretrained(result)
    with quiet_transformers(), raised_as_os_error():
        _save_full(model, folder, generation_config)
        tokenizer.save_pretrained(folder)
        generation_config.save_pretrained(folder)


def _save_full(
    model: PreTrainedModel,
    folder: Path,
    generation_config: GenerationConfig,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """The configuration that is saved has the cache on, which training turned off."""
    use_cache, declared = model.config.use_cache, model.generation_config
    model.config.use_cache, model.generation_config = True, generation_config
    try:
        model.save_pretrained(folder, state_dict=None if weights is None else dict(weights))
    finally:
        model.config.use_cache, model.generation_config = use_cache, declared


def _generation_config(
    model: PreTrainedModel, taught_end_ids: tuple[int, ...], pad_token_id: int
) -> GenerationConfig:
    declared: GenerationConfig = model.generation_config
    former = declared.eos_token_id
    former_ids = former if isinstance(former, list) else [] if former is None else [former]
    end_ids = list(dict.fromkeys([*taught_end_ids, *former_ids]))
    own = {
        "bos_token_id": declared.bos_token_id,
        "eos_token_id": end_ids[0] if len(end_ids) == 1 else end_ids or None,
        "pad_token_id": pad_token_id,
    }
    config = copy.deepcopy(declared)
    config.update(**own)
    try:
        config.validate(strict=True)
    except ValueError:
        # Sampling values beside greedy decoding, say, which transformers reads but does not write.
        return GenerationConfig(**own)
    return config
