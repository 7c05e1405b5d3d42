"""Whether a model's logits are its last hidden states times a matrix, and nothing else."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trimtab.models.adapters import Model, causal_model
from trimtab.models.sharding import is_sharded

NUM_CHECKED_TOKENS = 8

_KNOWN: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def plain_head(model: Model) -> nn.Linear | None:
    """The linear module that makes logits of the last hidden states; None where more is done.

    Soft-capped or scaled logits, an adapted head and weights in shards are more. It is asked of the
    model itself, by a forward pass over a few tokens the first time; random state is left alone.
    """
    causal = causal_model(model)
    head = causal.get_output_embeddings()
    if type(head) is not nn.Linear:
        return None
    if causal not in _KNOWN:
        _KNOWN[causal] = not is_sharded(causal.parameters()) and _is_all(causal, head)
    return head if _KNOWN[causal] else None


def _is_all(causal: PreTrainedModel, head: nn.Linear) -> bool:
    """Whether hidden states reach the head as they are, and logits leave as the head made them."""
    seen: dict[str, Any] = {}
    hooks = [
        causal.base_model.register_forward_hook(lambda _, __, out: seen.update(base=out)),
        head.register_forward_hook(lambda _, given, out: seen.update(given=given[0], made=out)),
    ]
    device = head.weight.device
    tokens_1L = torch.arange(min(NUM_CHECKED_TOKENS, head.out_features), device=device)[None]
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            logits: Tensor = causal(input_ids=tokens_1L, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    if seen.keys() != {"base", "given", "made"}:
        return False
    return torch.equal(seen["base"][0], seen["given"]) and torch.equal(seen["made"], logits)
