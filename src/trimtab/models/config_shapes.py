"""The shapes of weights from config.json alone, for architectures laid out as llama is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from trimtab.errors import ConfigError

LLAMA_LIKE: Final = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Attention of four projections, three of the feed-forward, two norms a layer."""
NORMED_HEADS: Final = frozenset({"qwen3"})
"""Those that norm queries and keys."""
BIASED_PROJECTIONS: Final = frozenset({"qwen2"})
"""Those whose queries, keys and values have biases in any case."""
READS_ATTENTION_BIAS: Final = frozenset({"llama", "qwen3"})
READS_MLP_BIAS: Final = frozenset({"llama"})
"""Those whose config.json decides of the biases of all four projections, or the feed-forward's."""


def shapes_from_config(config: Mapping[str, Any], where: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor by the name that its file would give it.

    Raises ConfigError for another architecture, and where a size is missing.
    """
    architecture = str(config.get("model_type"))
    if architecture not in LLAMA_LIKE:
        raise ConfigError(
            f"model: without its weights the sizes of {architecture!r} are not known; they are for "
            f"{', '.join(sorted(LLAMA_LIKE))}.",
            where=str(where),
            hint="Put its safetensors files beside config.json: their headers are enough.",
        )
    hidden = _size(config, "hidden_size", where)
    inner = _size(config, "intermediate_size", where)
    num_heads = _size(config, "num_attention_heads", where)
    num_kv_heads = config.get("num_key_value_heads") or num_heads
    head_size = config.get("head_dim") or hidden // num_heads
    vocab_size = _size(config, "vocab_size", where)
    heads = {"q_proj": num_heads, "k_proj": num_kv_heads, "v_proj": num_kv_heads}
    biases = {f"self_attn.{name}.bias": (count * head_size,) for name, count in heads.items()}
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (vocab_size, hidden)
    layer = _layer(hidden, inner, num_heads * head_size, num_kv_heads * head_size)
    if architecture in BIASED_PROJECTIONS:
        layer |= biases
    if architecture in READS_ATTENTION_BIAS and config.get("attention_bias"):
        layer |= biases | {"self_attn.o_proj.bias": (hidden,)}
    if architecture in READS_MLP_BIAS and config.get("mlp_bias"):
        layer |= {
            "mlp.gate_proj.bias": (inner,),
            "mlp.up_proj.bias": (inner,),
            "mlp.down_proj.bias": (hidden,),
        }
    if architecture in NORMED_HEADS:
        layer |= {f"self_attn.{name}.weight": (head_size,) for name in ("q_norm", "k_norm")}
    for index in range(_size(config, "num_hidden_layers", where)):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    return shapes


def _layer(hidden: int, inner: int, queries: int, keys: int) -> dict[str, tuple[int, ...]]:
    """[out_features, in_features] of the linear modules, as torch keeps them."""
    return {
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }


def _size(config: Mapping[str, Any], key: str, where: Path) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value <= 0:
        raise ConfigError(f"model: {key} is {value!r}, not a size.", where=str(where))
    return value
