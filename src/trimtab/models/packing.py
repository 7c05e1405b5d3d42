"""Whether documents may be joined in a model: an experiment on it, not a list of names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trimtab.models.attention import IMPLEMENTATION, document_arguments
from trimtab.models.foreign import first_sentence
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.models.quiet import quiet_transformers

DOCUMENT_LAYERS = frozenset({"full_attention", "sliding_attention"})
MAX_CHECKED_TOKENS = 512
RELATIVE_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


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
    layer_types = model.config.get_text_config().to_dict().get("layer_types") or ()
    others = sorted(set(layer_types) - DOCUMENT_LAYERS)
    if others:
        return (
            f"{kind} has layers of the kind {', '.join(others)}, in which documents cannot be "
            "kept apart."
        )
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
