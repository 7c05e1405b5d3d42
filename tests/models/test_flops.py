from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from trimtab.models.adapters import add_lora
from trimtab.models.description import describe
from trimtab.models.flops import lora_parameters, training_flops_per_token, weight_counts
from trimtab.models.source import ModelSource

NUM_TOKENS = 64


def counted(model: Any, *, kept: int) -> int:
    """The matrix products of one forward and backward pass, attention scores aside."""
    ids = torch.arange(NUM_TOKENS)[None] % 300
    keep = torch.arange(kept)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, logits_to_keep=keep).logits.sum().backward()
    products = counter.get_flop_counts()["Global"]
    return sum(count for op, count in products.items() if "attention" not in str(op))


def counts(source: ModelSource, num_adapter_parameters: int = 0) -> Any:
    description = describe(source)
    return weight_counts(
        num_parameters=description.num_parameters,
        num_embedding_parameters=description.num_embedding_parameters,
        hidden_size=description.hidden_size,
        vocab_size=description.vocab_size,
        head_is_tied=description.head_is_tied,
        num_adapter_parameters=num_adapter_parameters,
    )


def test_full_fine_tuning_is_six_operations_a_weight() -> None:
    tied = weight_counts(
        num_parameters=1100,
        num_embedding_parameters=100,
        hidden_size=10,
        vocab_size=10,
        head_is_tied=True,
    )
    assert training_flops_per_token(tied, "full") == 6 * 1100
    assert training_flops_per_token(tied, "full", trainable_share=0.25) == 6 * (1000 + 25)
    assert training_flops_per_token(tied, "lora") == 4 * 1100
    assert training_flops_per_token(tied, "full", share_recomputed=0.5) == 7 * 1000 + 6 * 100


def test_an_untied_head_is_counted_once() -> None:
    untied = weight_counts(
        num_parameters=1200,
        num_embedding_parameters=100,
        hidden_size=10,
        vocab_size=10,
        head_is_tied=False,
    )
    assert (untied.num_body, untied.num_head) == (1000, 100)


def test_it_agrees_with_what_torch_counts(load: Any, tiny_sources: dict[str, ModelSource]) -> None:
    for architecture in ("llama", "qwen3"):
        expected = training_flops_per_token(
            counts(tiny_sources[architecture]), "full", trainable_share=0.25
        )
        actual = counted(load(architecture).train(), kept=NUM_TOKENS // 4) / NUM_TOKENS
        assert abs(actual / expected - 1) < 0.02


def test_lora_agrees_with_what_torch_counts(
    load: Any, tiny_sources: dict[str, ModelSource]
) -> None:
    source = tiny_sources["llama"]
    num_adapter = lora_parameters(list(describe(source).linear_modules), 8)
    model = add_lora(
        load("llama"), r=8, alpha=16.0, dropout=0.0, target_modules="all-linear", seed=0
    )
    assert num_adapter == model.get_nb_trainable_parameters()[0]
    expected = training_flops_per_token(counts(source, num_adapter), "lora", trainable_share=0.25)
    actual = counted(model.train(), kept=NUM_TOKENS // 4) / NUM_TOKENS
    # The first layer's input needs no gradient, a seventh of this tiny model's work.
    assert 0.85 < actual / expected < 1.02
