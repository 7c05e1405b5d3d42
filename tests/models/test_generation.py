from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny import ARCHITECTURES

from trimtab.models.adapters import add_lora, trainable_parameters
from trimtab.models.attention import IMPLEMENTATION
from trimtab.models.checkpointing import set_activation_checkpointing
from trimtab.models.generation import generate_greedy

PROMPTS = ([6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], [40], [100, 200, 300])
NEVER = (1000,)


@torch.no_grad()
def token_by_token(model: Any, prompt: list[int], number: int) -> list[int]:
    ids = list(prompt)
    for _ in range(number):
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]


def moved(adapted: Any) -> Any:
    """Adapters that change the answers."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainable_parameters(adapted).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return adapted


def with_lora(model: Any) -> Any:
    return moved(add_lora(model, r=4, alpha=8.0, dropout=0.5, target_modules="all-linear", seed=0))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_is_answered_as_each_prompt_alone_without_a_cache(
    architecture: str, load: Any
) -> None:
    model = load(architecture).train()
    answers = generate_greedy(
        model, PROMPTS, max_new_tokens=12, eos_token_ids=NEVER, pad_token_id=5
    )
    plain = load(architecture, packed=False)
    assert answers == [token_by_token(plain, prompt, 12) for prompt in PROMPTS]


def test_the_models_own_settings_change_no_answer(load: Any) -> None:
    model = load("qwen3")
    own = model.generation_config
    own.repetition_penalty, own.suppress_tokens = 30.0, token_by_token(model, PROMPTS[0], 1)
    answers = generate_greedy(
        model, [PROMPTS[0]], max_new_tokens=12, eos_token_ids=NEVER, pad_token_id=5
    )
    assert answers == [token_by_token(model, PROMPTS[0], 12)]
    assert model.generation_config is own


def test_an_answer_stops_before_an_end_token(load: Any) -> None:
    model = load("qwen3")
    whole = token_by_token(model, PROMPTS[0], 6)
    end = whole[3]
    (answer,) = generate_greedy(
        model, [PROMPTS[0]], max_new_tokens=6, eos_token_ids=(end, 999), pad_token_id=5
    )
    assert answer == whole[: whole.index(end)]


def test_base_leaves_the_adapters_out(load: Any) -> None:
    model = with_lora(load("qwen3"))
    tuned, base = (
        generate_greedy(
            model, PROMPTS, max_new_tokens=8, eos_token_ids=NEVER, pad_token_id=5, base=base
        )
        for base in (False, True)
    )
    assert base == [token_by_token(load("qwen3"), prompt, 8) for prompt in PROMPTS]
    assert tuned == [token_by_token(model.eval(), prompt, 8) for prompt in PROMPTS]
    assert tuned != base


@pytest.mark.parametrize("base", [False, True])
def test_everything_is_as_it_was(base: bool, load: Any) -> None:
    model = with_lora(load("llama")).train()
    set_activation_checkpointing(model, "full")
    causal = model.get_base_model()
    trained = list(trainable_parameters(model))
    before = torch.get_rng_state()
    generate_greedy(
        model, PROMPTS, max_new_tokens=3, eos_token_ids=NEVER, pad_token_id=5, base=base
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert list(trainable_parameters(model)) == trained
    assert all(module.training for module in model.modules())
    assert causal.config._attn_implementation == IMPLEMENTATION
    assert causal.config.use_cache is False
    assert causal.model.layers[0].gradient_checkpointing is True


def test_an_answer_ends_at_the_last_position(load: Any) -> None:
    model = load("gpt2")
    (answer,) = generate_greedy(
        model, [[7] * 250], max_new_tokens=50, eos_token_ids=NEVER, pad_token_id=5
    )
    assert len(answer) == 6


@pytest.mark.parametrize("prompts", [[[]], [[6], []], [[7] * 256]])
def test_a_prompt_without_a_next_position_is_refused(prompts: list[list[int]], load: Any) -> None:
    with pytest.raises(ValueError, match="positions"):
        generate_greedy(
            load("gpt2"), prompts, max_new_tokens=2, eos_token_ids=NEVER, pad_token_id=5
        )
