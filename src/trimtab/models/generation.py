"""Greedy answers from a model, trained or not, as it stands in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig

from trimtab.models.adapters import Model, causal_model
from trimtab.models.attention import IMPLEMENTATION
from trimtab.models.description import max_positions
from trimtab.models.quiet import quiet_transformers


@torch.no_grad()
def generate_greedy(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos_token_ids: Sequence[int],
    pad_token_id: int,
    base: bool = False,
) -> list[list[int]]:
    """The new token ids for each prompt, up to an end token, `max_new_tokens` or the last position.

    `base` answers without the adapters. Mode, cache, attention and random state are as before
    afterwards. Raises ValueError for an empty prompt, or one that fills the model's positions.
    """
    width = max(len(prompt) for prompt in prompts)
    num_positions = max_positions(causal_model(model).config)
    num_new_tokens = max_new_tokens
    if num_positions is not None:
        num_new_tokens = min(max_new_tokens, num_positions - width)
    if num_new_tokens < 1 or not all(prompts):
        raise ValueError(f"a prompt of {width} tokens, {num_positions} positions, or an empty one")
    ids = torch.full((len(prompts), width), pad_token_id)
    mask = torch.zeros_like(ids)
    for index, prompt in enumerate(prompts):
        ids[index, width - len(prompt) :] = torch.tensor(prompt)
        mask[index, width - len(prompt) :] = 1
    causal: Any = causal_model(model)
    config = GenerationConfig(
        max_new_tokens=num_new_tokens,
        do_sample=False,
        eos_token_id=list(eos_token_ids) or None,
        pad_token_id=pad_token_id,
        use_cache=True,
    )
    with _for_generation(model), _without_adapters(model, base), quiet_transformers():
        output = causal.generate(
            input_ids=ids.to(causal.device),
            attention_mask=mask.to(causal.device),
            generation_config=config,
        )
    return [_until_end(new.tolist(), eos_token_ids) for new in output[:, width:].cpu()]


def _until_end(ids: list[int], eos_token_ids: Sequence[int]) -> list[int]:
    ends = [index for index, token_id in enumerate(ids) if token_id in eos_token_ids]
    return ids[: ends[0]] if ends else ids


@contextmanager
def _for_generation(model: Model) -> Iterator[None]:
    """Evaluation mode with a cache; transformers' own `sdpa` in place of document attention.

    transformers fills what a call does not ask for from the model's own generation settings, such
    as a penalty on repetition, which would be no greedy answer.
    """
    causal = causal_model(model)
    was_training, use_cache = model.training, causal.config.use_cache
    attention, own_settings = causal.config._attn_implementation, causal.generation_config
    model.eval()
    causal.generation_config = GenerationConfig()
    causal.config.use_cache = True
    if attention == IMPLEMENTATION:
        causal.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        if attention == IMPLEMENTATION:
            causal.set_attn_implementation(attention)
        causal.generation_config = own_settings
        causal.config.use_cache = use_cache
        model.train(was_training)


def _without_adapters(model: Model, base: bool) -> AbstractContextManager[None]:
    if base and isinstance(model, PeftModel):
        return model.disable_adapter()
    return nullcontext()
