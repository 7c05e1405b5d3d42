"""Activation checkpointing of every k-th layer."""

from __future__ import annotations

import functools
from typing import Literal

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from trimtab.errors import ConfigError
from trimtab.models.adapters import Model, causal_model


def can_recompute(model: Model) -> bool:
    """Whether the architecture has layers that can recompute their activations."""
    return bool(_recomputing_layers(model))


def _recomputing_layers(model: Model) -> list[GradientCheckpointingLayer]:
    return [
        module
        for module in causal_model(model).modules()
        if isinstance(module, GradientCheckpointingLayer)
    ]


def set_activation_checkpointing(model: Model, every: Literal["off", "full"] | int) -> int:
    """Recompute the activations of no layer, of all, or of every k-th in the backward pass.

    Returns the number of layers that recompute. The layers' own switch is set, not the model's:
    the model's would also make inputs require gradients, which non-reentrant checkpointing does
    not need. Raises ConfigError for an architecture without such layers.
    """
    layers = _recomputing_layers(model)
    if not layers and every != "off":
        raise ConfigError(
            f"activation_checkpointing: {every} is not possible, since "
            f"{causal_model(model).config.model_type} has no layer that can recompute.",
            hint="Set activation_checkpointing: off.",
        )
    for index, layer in enumerate(layers):
        layer.gradient_checkpointing = every == "full" or (every != "off" and index % every == 0)
        recompute = functools.partial(checkpoint, use_reentrant=False)
        layer._gradient_checkpointing_func = recompute  # type: ignore[assignment]
    return sum(layer.gradient_checkpointing for layer in layers)
