"""Tiny random models and a tokenizer, made on the spot: no download, a second to build."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|reserved_0|>"]
ARCHITECTURES = ("llama", "qwen3", "gemma3_text", "gpt2", "mistral")
VOCABULARY_SIZE = 320
SLIDING_WINDOW = 8


def tiny_tokenizer(*, chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 320 tokens; `</s>` is eos, and no pad token is declared."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = ["the quick brown fox jumps over the lazy dog and answers the question of the user"] * 4
    tokenizer.train_from_iterator(text, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<|im_end|>" if chat_template else "</s>",
    )
    fast.chat_template = chat_template
    return fast


def tiny_model(architecture: str = "llama", *, seed: int = 0) -> PreTrainedModel:
    """A random fp32 model of two layers, hidden size 32, vocabulary 320, positions up to 256.

    `mistral` and every other layer of `gemma3_text` have a sliding window of 8 tokens.
    """
    shared = {"vocab_size": VOCABULARY_SIZE, "bos_token_id": 1, "eos_token_id": 4}
    if architecture == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
        sizes |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    else:
        sizes = {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 256,
        }
    if architecture in {"mistral", "gemma3_text"}:
        sizes["sliding_window"] = SLIDING_WINDOW
    if architecture == "gemma3_text":
        sizes["layer_types"] = ["sliding_attention", "full_attention"]
    if architecture == "llama":
        sizes["tie_word_embeddings"] = True
    config = AutoConfig.for_model(architecture, **shared, **sizes)
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


def save_tiny_model(
    folder: Path,
    architecture: str = "llama",
    *,
    chat_template: str | None = CHATML,
    seed: int = 0,
) -> Path:
    """Write the tiny model and its tokenizer as a Hugging Face folder; returns the folder."""
    tiny_model(architecture, seed=seed).save_pretrained(folder)
    tiny_tokenizer(chat_template=chat_template).save_pretrained(folder)
    return folder
