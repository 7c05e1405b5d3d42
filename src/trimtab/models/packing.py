"""Whether documents may be joined in a model: an experiment on a small one of its kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from trimtab.models.attention import IMPLEMENTATION, document_arguments
from trimtab.models.foreign import UNUSABLE_FILES, first_sentence
from trimtab.models.loading import take_packed_attention
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.models.quiet import quiet_transformers
from trimtab.models.source import ModelSource

DOCUMENT_LAYERS = frozenset({"full_attention", "sliding_attention"})
MAX_CHECKED_TOKENS = 512
RELATIVE_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}

MIN_LAYERS = 2
SMALL_VOCABULARY = 256
SMALL_WINDOW = 8
SMALL_WIDTHS = {"intermediate_size": 128, "moe_intermediate_size": 16}
SMALL_TOKEN_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def packing_refusal_of(source: ModelSource) -> str | None:
    """Why documents cannot be joined in models of this configuration; None where they can.

    The experiment of `packing_refusal` on a small model of random weights: what lets documents
    meet is the architecture, so no weight is read. The global random state is left as it was.
    """
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(
                source.folder, trust_remote_code=source.trust_remote_code
            )
            refusal = _refused_layers(config)
            if refusal is not None:
                return refusal
            model = _small_model(small_config(config), source.trust_remote_code)
    except UNUSABLE_FILES as error:
        if is_out_of_memory(error):
            raise
        return f"no small model could be built to check it: {first_sentence(error)}"
    return packing_refusal(model)


def _small_model(config: PreTrainedConfig, trust_remote_code: bool) -> PreTrainedModel:
    """An fp32 model on the CPU, its random weights the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        built = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=trust_remote_code
        )
    model = cast(PreTrainedModel, built)
    model.eval()
    take_packed_attention(model)
    return model


def small_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The same architecture with few layers, a small vocabulary and a short sliding window.

    Every kind of layer that the configuration names stays. Of a model of several parts (a text
    model beside one for images), the others keep one layer.
    """
    text_config = config.get_text_config()
    small_text = {**text_config.to_dict(), **_small_sizes(text_config)}
    if text_config is config:
        return type(config).from_dict(small_text)
    parts = {name: config.to_dict()[name] for name in config.sub_configs}
    small_parts = {
        name: small_text
        if part["model_type"] == text_config.model_type
        else {**part, **({"num_hidden_layers": 1} if "num_hidden_layers" in part else {})}
        for name, part in parts.items()
    }
    return type(config).from_dict({**config.to_dict(), **small_parts})


def _small_sizes(text_config: PreTrainedConfig) -> dict[str, Any]:
    """What the small model changes, by the architecture's own names."""
    sizes = text_config.to_dict()
    layer_types = _each_kind(sizes.get("layer_types") or ())
    changes: dict[str, Any] = {
        "num_hidden_layers": max(MIN_LAYERS, len(layer_types)),
        "vocab_size": SMALL_VOCABULARY,
        **SMALL_TOKEN_IDS,
    }
    if layer_types:
        changes["layer_types"] = layer_types
    if sizes.get("sliding_window"):
        changes["sliding_window"] = SMALL_WINDOW
    for name, largest in SMALL_WIDTHS.items():
        if (sizes.get(name) or 0) > largest:
            changes[name] = largest
    return {text_config.attribute_map.get(name, name): value for name, value in changes.items()}


def _each_kind(layer_types: Sequence[str]) -> list[str]:
    """Every kind of layer once, in order; twice where there is one kind only."""
    kinds = list(dict.fromkeys(layer_types))
    return kinds * MIN_LAYERS if len(kinds) == 1 else kinds


@torch.no_grad()
def packing_refusal(model: PreTrainedModel) -> str | None:
    """Why documents cannot be joined in this model, as a sentence; None where they can.

    An experiment on the model itself: two random documents are run joined, and each alone through
    transformers' plain attention, and the logits must agree; then the first is changed, and the
    logits of the second must stay. Documents are longer than the sliding window where that is at
    most 512 tokens. Random state, gradients and mode are left as they were.
    """
    kind = model.config.model_type
    if model.config._attn_implementation != IMPLEMENTATION:
        return (
            f"{kind} does not take its attention from transformers' interface, so documents "
            "cannot be kept apart in it."
        )
    refusal = _refused_layers(model.config)
    if refusal is not None:
        return refusal
    was_training = model.training
    model.eval()
    try:
        with quiet_transformers():
            return _leak(model)
    except (TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return f"{kind} cannot take joined documents: {first_sentence(error)}"
    finally:
        model.train(was_training)


def _refused_layers(config: PreTrainedConfig) -> str | None:
    layer_types = config.get_text_config().to_dict().get("layer_types") or ()
    others = sorted(set(layer_types) - DOCUMENT_LAYERS)
    if not others:
        return None
    return (
        f"{config.model_type} has layers of the kind {', '.join(others)}, in which documents "
        "cannot be kept apart."
    )


def _leak(model: PreTrainedModel) -> str | None:
    kind = model.config.model_type
    first, second = _random_documents(model)
    joined = _logits(model, first, second)
    with _plain_attention(model):
        alone = torch.cat([_logits(model, first), _logits(model, second)])
    changed = _logits(model, (first + 1) % int(first.max() + 1), second)
    tolerance = RELATIVE_TOLERANCE[joined.dtype] * float(alone.abs().max())
    moved = float((changed - joined)[len(first) :].abs().max())
    if not moved <= tolerance:
        return f"in {kind}, changing one document moves the next one's logits by {moved:.2g}."
    difference = float((joined - alone).abs().max())
    if not difference <= tolerance:
        return (
            f"in {kind}, logits of joined documents differ from those of each alone by "
            f"{difference:.2g}."
        )
    return None


def _random_documents(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    text_config = model.config.get_text_config()
    window = text_config.to_dict().get("sliding_window") or 0
    length = window + 5 if window + 5 <= MAX_CHECKED_TOKENS else 24
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.randint(text_config.vocab_size, (number,), generator=generator)
        for number in (length, length + 3)
    )
    return first, second


def _logits(model: PreTrainedModel, *documents: Tensor) -> Tensor:
    """Logits [T, V] of the documents joined in one row."""
    lengths = tuple(len(document) for document in documents)
    positions = torch.cat([torch.arange(length) for length in lengths])
    arguments = document_arguments(lengths) if len(documents) > 1 else {}
    output = model(
        input_ids=torch.cat(documents)[None].to(model.device),
        position_ids=positions[None].to(model.device),
        use_cache=False,
        **arguments,
    )
    logits: Tensor = output.logits[0]
    return logits


@contextmanager
def _plain_attention(model: PreTrainedModel) -> Iterator[None]:
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(IMPLEMENTATION)
