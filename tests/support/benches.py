"""A tiny model with its optimizer to measure on, and everything that a measurement may not move."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from support.batches import Layout, ragged_rows
from support.models import packed_model
from support.settings import tiny_settings
from trimtab.data.rows import MicroBatch
from trimtab.engine.building import adapted
from trimtab.engine.optimizer import make_optimizer
from trimtab.probes.bench import Bench


def tiny_bench(**changes: Any) -> Bench:
    settings = tiny_settings(**changes)
    model = adapted(packed_model(), settings)
    return Bench(settings, model, make_optimizer(model, settings), torch.device("cpu"))


def tiny_batch() -> MicroBatch:
    return Layout("padding-free").collate(ragged_rows())


def standing(bench: Bench) -> str:
    """Equal as long as weights, optimizer, random state, mode and checkpointing are."""
    digest = hashlib.blake2b()
    for name, value in bench.model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    digest.update(torch.get_rng_state().numpy().tobytes())
    for optimizer in bench.optimizer.optimizers:
        options = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        digest.update(repr((len(optimizer.state), options)).encode())
    layers = [
        module.gradient_checkpointing
        for module in bench.model.modules()
        if isinstance(module, GradientCheckpointingLayer)
    ]
    gradients = [parameter.grad for parameter in bench.model.parameters()]
    has_gradients = any(gradient is not None for gradient in gradients)
    digest.update(repr((bench.model.training, layers, has_gradients)).encode())
    return digest.hexdigest()
