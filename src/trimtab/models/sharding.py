"""A model whose weights lie in shards over several processes (torch's FSDP2)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from trimtab.models.adapters import Model, causal_model


def shard(model: Model, device: torch.device) -> None:
    """Leave each process its part of every weight; layers are gathered while they compute.

    Each repeated layer is gathered by itself and what stands around them, embeddings and output
    head, together. Weights keep their dtypes, so that autocast does what it does in a replica.
    Gradients are summed over the processes, not averaged: the loss is divided by the trainable
    tokens of all of them already. They are summed after every micro-batch: gradients of whole
    weights would take the memory that shards are there to save.
    """
    causal = causal_model(model)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in repeated_layers(causal):
        fully_shard(layer, mesh=mesh)
    fully_shard(causal, mesh=mesh)
    for module in causal.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            # gloo has no other reduction than plain sums.
            module.set_force_sum_reduction_for_comms(True)


def repeated_layers(model: nn.Module) -> list[nn.Module]:
    """The modules of the longest list of modules in the model: its decoder layers."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    longest = max(map(len, lists), default=0)
    return next((list(modules) for modules in lists if len(modules) == longest), [])


def is_sharded(weights: Iterable[Tensor]) -> bool:
    return any(isinstance(weight, DTensor) for weight in weights)


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or gathered from its shards; all processes must ask together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(whole_tensor: Tensor, example: Tensor) -> Tensor:
    """The tensor as the example lies: itself, or this process's shard of it. Nothing is sent."""
    if not isinstance(example, DTensor):
        return whole_tensor
    return distribute_tensor(
        whole_tensor.to(example.device),
        example.device_mesh,
        example.placements,
        src_data_rank=None,
    )
