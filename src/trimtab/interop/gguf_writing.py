"""A transformers model as a GGUF file, for llama.cpp, Ollama and whatever else reads them.

Architectures are those whose tensors the package `gguf` maps and whose layout is checked by
reading the file back; tensor names are that package's. After the GGUF specification (ggml-org) and
llama.cpp's `convert_hf_to_gguf.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from trimtab.errors import ConfigError

Quantization = Literal["f32", "f16", "bf16", "q8_0"]
HALVES: Final[tuple[Quantization, ...]] = ("f16", "bf16")
ARCHITECTURES: Final = {"llama": "LLAMA", "mistral": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3"}
"""transformers' model_type → gguf's architecture."""
_PERMUTED: Final = frozenset({"llama", "mistral"})
"""Of these, ggml rotates neighbouring pairs of a head's values, transformers its two halves."""
_Q8_BLOCK: Final = 32
_QWEN_PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_PATTERN: Final = _QWEN_PATTERN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
_PATTERNS: Final = {_QWEN_PATTERN: "qwen2", _LLAMA3_PATTERN: "llama-bpe"}
"""How text is cut before merges, by llama.cpp's name for it."""


def refuse_unmappable(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raises ConfigError, before anything is written, for what a GGUF file would not hold."""
    if find_spec("gguf") is None:
        raise ConfigError(
            "writing GGUF needs the package gguf.",
            hint="Install it with `pip install 'trimtab[gguf]'`.",
        )
    config = model.config
    if config.model_type not in ARCHITECTURES:
        raise ConfigError(
            f"the architecture {config.model_type} cannot be written as GGUF.",
            hint=f"Those that can are {', '.join(ARCHITECTURES)}; --to merged writes safetensors, "
            "which llama.cpp's convert_hf_to_gguf.py reads.",
        )
    window = getattr(config, "sliding_window", None) if config.model_type == "mistral" else None
    if window is not None and window < config.max_position_embeddings:
        raise ConfigError(
            f"the architecture {config.model_type} has a sliding window of {window} tokens, which "
            "GGUF's llama does not hold."
        )
    scaling = (config.rope_parameters or {}).get("rope_type", "default")
    if scaling != "default":
        raise ConfigError(f"positions scaled by {scaling!r} cannot be written as GGUF.")
    kind = _tokenizer_json(tokenizer)["model"]["type"]
    if kind != "BPE" or not _is_byte_level(tokenizer):
        raise ConfigError(
            f"a tokenizer of the kind {kind} that is not byte-level BPE cannot be written as GGUF."
        )


def write_gguf(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    path: Path,
    *,
    quantization: Quantization,
    name: str,
    end_token_id: int | None,
) -> frozenset[Quantization]:
    """Write weights, tokenizer, chat template and special tokens as one GGUF file.

    Matrices are F32, F16, BF16 or Q8_0 (F16 where a row is no multiple of 32), vectors F32.
    `end_token_id` is where generation stops. Returns the formats of 16 bits that hold every matrix
    as it is. Raises ConfigError as `refuse_unmappable` does.
    """
    import gguf

    refuse_unmappable(model, tokenizer)
    architecture = gguf.MODEL_ARCH[ARCHITECTURES[model.config.model_type]]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    _add_shape(writer, model, name, quantization)
    _add_tokenizer(writer, model, tokenizer, end_token_id)
    exact = frozenset(HALVES)
    for tensor_name, values in _tensors(model, architecture):
        if values.ndim > 1:
            exact = frozenset(kind for kind in exact if is_exact(values, kind))
        _add_tensor(writer, tensor_name, values, quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return exact


def is_exact(values: np.ndarray[Any, Any], kind: Quantization) -> bool:
    """Whether fp32 values are the same once they are written in this format of 16 bits."""
    if kind == "bf16":
        return not (np.ascontiguousarray(values).view(np.uint32) & 0xFFFF).any()
    with np.errstate(over="ignore"):
        return np.array_equal(values.astype(np.float16).astype(np.float32), values)


def _add_shape(writer: Any, model: PreTrainedModel, name: str, quantization: Quantization) -> None:
    import gguf

    config: Any = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    kinds = {
        "f32": "ALL_F32",
        "f16": "MOSTLY_F16",
        "bf16": "MOSTLY_BF16",
        "q8_0": "MOSTLY_Q8_0",
    }
    writer.add_file_type(gguf.LlamaFileType[kinds[quantization]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_tokenizer(
    writer: Any,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    end_token_id: int | None,
) -> None:
    """Every id of the embedding has a token; those that the tokenizer does not use are named."""
    import gguf

    description = _tokenizer_json(tokenizer)
    by_id = {token_id: token for token, token_id in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    tokens, kinds = [], []
    for token_id in range(model.config.vocab_size):
        if token_id not in by_id:
            tokens.append(f"[PAD{token_id}]")
            kinds.append(gguf.TokenType.UNUSED)
        else:
            tokens.append(by_id[token_id])
            is_added = token_id in added
            special = is_added and added[token_id].special
            kind = gguf.TokenType.CONTROL if special else gguf.TokenType.USER_DEFINED
            kinds.append(kind if is_added else gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_name(description))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = description["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    ends = end_token_id if end_token_id is not None else tokenizer.eos_token_id
    for add, token_id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, ends),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token_id is not None:
            add(token_id)
    writer.add_add_bos_token(adds_bos(tokenizer))
    writer.add_add_space_prefix(False)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


def adds_bos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether a text's ids begin with the bos token, which the text need not have."""
    ids = tokenizer("a").input_ids
    return bool(ids) and ids[0] == tokenizer.bos_token_id


def pre_tokenizer_name(description: dict[str, Any]) -> str:
    """llama.cpp's name of how text is cut before merges; `default` where it has none."""
    parts = description["pre_tokenizer"]
    parts = parts["pretokenizers"] if parts["type"] == "Sequence" else [parts]
    for part in parts:
        if part["type"] == "Split":
            return _PATTERNS.get(part["pattern"].get("Regex", ""), "default")
        if part["type"] == "Digits" and part["individual_digits"]:
            return "smollm"
    return "gpt-2" if parts[-1].get("use_regex", True) else "default"


def _tensors(
    model: PreTrainedModel, architecture: Any
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Tensors under gguf's names, fp32, one at a time; a tied output head is left out."""
    import gguf

    config: Any = model.config
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, weights in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        mapped = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if mapped is None:
            raise ConfigError(f"the tensor {name} has no name in GGUF's {config.model_type}.")
        values = weights.detach().to(torch.float32)
        if config.model_type in _PERMUTED and ".q_proj." in name:
            values = _in_pairs(values, config.num_attention_heads)
        elif config.model_type in _PERMUTED and ".k_proj." in name:
            values = _in_pairs(values, config.num_key_value_heads)
        yield mapped, values.cpu().numpy()


def _in_pairs(weights: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Rows of each head from (first half, second half) to (first of each half, second, …)."""
    halves = weights.reshape(num_heads, 2, weights.shape[0] // num_heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def _add_tensor(
    writer: Any, name: str, values: np.ndarray[Any, Any], quantization: Quantization
) -> None:
    import gguf

    if values.ndim == 1 or quantization == "f32":
        writer.add_tensor(name, values)
    elif quantization == "bf16" or (quantization == "q8_0" and values.shape[-1] % _Q8_BLOCK == 0):
        kind = gguf.GGMLQuantizationType[quantization.upper()]
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, values.astype(np.float16))


def _tokenizer_json(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    description: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return description


def _is_byte_level(tokenizer: PreTrainedTokenizerFast) -> bool:
    parts = _tokenizer_json(tokenizer)["pre_tokenizer"]
    if parts is None:
        return False
    parts = parts["pretokenizers"] if parts["type"] == "Sequence" else [parts]
    return any(part["type"] == "ByteLevel" for part in parts)
