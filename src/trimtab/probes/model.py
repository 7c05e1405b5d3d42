"""How large the model is, which token can pad, and whether packed rows stay apart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from trimtab.models.description import ModelDescription
from trimtab.models.pad_token import PadToken
from trimtab.planning.fact import Fact


def probe_model(
    description: ModelDescription,
    pad_token: PadToken,
    *,
    has_chat_template: bool,
    packing_refusal: str | None,
    packing_check_s: float,
) -> Iterator[Fact]:
    """Facts of `ModelQuestion`.

    `packing_refusal` is the leak check's answer on a small model of the same configuration; None
    also where rows are padded anyway, which is not checked.
    """
    started = time.perf_counter()
    method = "counted from the model's configuration, no weight read"
    numbers: dict[str, tuple[Any, str | None]] = {
        "architecture": (description.architecture, None),
        "num_parameters": (description.num_parameters, "weights"),
        "num_embedding_parameters": (description.num_embedding_parameters, "weights"),
        "head_is_tied": (description.head_is_tied, None),
        "head_is_plain": (description.head_is_plain, None),
        "num_layers": (description.num_layers, "layers"),
        "hidden_size": (description.hidden_size, None),
        "vocab_size": (description.vocab_size, "tokens"),
        "max_position_embeddings": (description.max_position_embeddings, "tokens"),
        "linear_modules": ([list(module) for module in description.linear_modules], None),
        "chat_template": (has_chat_template, None),
    }
    cost_s = time.perf_counter() - started
    for name, (value, unit) in numbers.items():
        yield Fact(f"model.{name}", value, unit, method=method, cost_s=cost_s)
    yield Fact(
        "model.packing_refusal",
        None if packing_refusal is None else packing_refusal.rstrip("."),
        method="two documents joined against each alone, on a small model of the configuration; "
        "not checked where rows are padded anyway",
        cost_s=packing_check_s,
    )
    vocabulary = "read from the tokenizer's vocabulary"
    yield Fact("model.pad_token", pad_token.token, method=vocabulary)
    yield Fact("model.pad_token_id", pad_token.token_id, method=vocabulary)
    yield Fact("model.pad_token_because", pad_token.because, method=vocabulary)
