"""Whether rows may be joined: an experiment on the model itself, not a list of names."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trimtab.models.attention import IMPLEMENTATION, document_arguments

NUM_TOKENS_BESIDE_WINDOW = 4
MAX_CHECKED_TOKENS = 96
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@torch.no_grad()
def packing_refusal(model: PreTrainedModel) -> str | None:
    """Why documents cannot be joined in this model, as a sentence; None where they can.

    Two random documents are run joined and each alone, and the first one is changed: the second
    one's logits must not move. Documents are longer than the sliding window where that is short.
    Random state, gradients and mode are left as they were.
    """
    if model.config._attn_implementation != IMPLEMENTATION:
        return (
            f"{model.config.model_type} does not take its attention from transformers' interface, "
            "so documents cannot be kept apart in it"
        )
    was_training = model.training
    model.eval()
    try:
        return _leak(model)
    except (TypeError, ValueError, RuntimeError) as error:
        return f"{model.config.model_type} fails on joined documents: {error}"
    finally:
        model.train(was_training)


def _leak(model: PreTrainedModel) -> str | None:
    lengths = _document_lengths(model)
    generator = torch.Generator().manual_seed(0)
    vocab_size = model.get_input_embeddings().weight.shape[0]
    documents = [torch.randint(vocab_size, (length,), generator=generator) for length in lengths]
    other_first = (documents[0] + 1) % vocab_size
    joined = _logits(model, documents)
    alone = [_logits(model, [document]) for document in documents]
    changed = _logits(model, [other_first, documents[1]])
    tolerance = TOLERANCE[joined.dtype] * max(1.0, float(joined.abs().max()))
    second = joined[lengths[0] :]
    moved = float((changed[lengths[0] :] - second).abs().max())
    if moved > tolerance:
        return f"changing one document moved the logits of the next by {moved:.2g}"
    difference = float((joined - torch.cat(alone)).abs().max())
    if difference > tolerance:
        return f"logits of joined documents differ from those of each alone by {difference:.2g}"
    return None


def _document_lengths(model: PreTrainedModel) -> tuple[int, int]:
    window = model.config.get_text_config().to_dict().get("sliding_window") or 0
    length = window + NUM_TOKENS_BESIDE_WINDOW
    return (length, length + 3) if length <= MAX_CHECKED_TOKENS else (9, 12)


def _logits(model: PreTrainedModel, documents: list[Tensor]) -> Tensor:
    """Logits [T, V] in float32 or the model's dtype, of the documents joined in one row."""
    lengths = tuple(len(document) for document in documents)
    positions = torch.cat([torch.arange(length) for length in lengths])
    device = model.device
    output = model(
        input_ids=torch.cat(documents)[None].to(device),
        position_ids=positions[None].to(device),
        use_cache=False,
        **document_arguments(lengths),
    )
    logits: Tensor = output.logits[0]
    return logits
