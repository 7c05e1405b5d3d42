"""A model with its optimizer that is measured on and left as it was."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from trimtab.data.rows import MicroBatch
from trimtab.engine.building import build_model, new_loss_scale
from trimtab.engine.guard import MAX_SKIPS_IN_A_ROW
from trimtab.engine.optimizer import OptimizerSet, make_optimizer
from trimtab.engine.precision import LossScale
from trimtab.engine.step import StepResult, training_step
from trimtab.models.adapters import Model
from trimtab.models.checkpointing import set_activation_checkpointing
from trimtab.models.source import ModelSource
from trimtab.planning.settings import Settings


@dataclass(frozen=True, slots=True)
class Bench:
    """What updates are measured on. The optimizer has no state yet."""

    settings: Settings
    model: Model
    optimizer: OptimizerSet
    device: torch.device


def make_bench(settings: Settings, source: ModelSource) -> Bench:
    """The model and optimizer that training under these settings would begin with."""
    model = build_model(settings, source)
    return Bench(settings, model, make_optimizer(model, settings), torch.device(settings.device))


@contextmanager
def left_as_it_was(bench: Bench) -> Iterator[None]:
    """Afterwards gradients, optimizer state, random state, mode and checkpointing are as before.

    Weights are the caller's: an update at learning rate 0 does not move them. Every measurement
    begins with the settings' seed.
    """
    was_training = bench.model.training
    groups = [g for optimizer in bench.optimizer.optimizers for g in optimizer.param_groups]
    options = [{name: group[name] for name in group if name != "params"} for group in groups]
    devices = [bench.device] if bench.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(bench.settings.seed)
        bench.model.train()
        try:
            yield
        finally:
            bench.optimizer.zero_grad()
            for group, as_before in zip(groups, options, strict=True):
                group.update(as_before)
            for optimizer in bench.optimizer.optimizers:
                optimizer.state.clear()
            bench.model.train(was_training)
            set_activation_checkpointing(bench.model, bench.settings.activation_checkpointing)


@contextmanager
def weights_put_back(bench: Bench) -> Iterator[list[torch.Tensor]]:
    """Yields copies of the trainable weights, and writes them back afterwards."""
    copies = [parameter.detach().clone() for parameter in bench.optimizer.parameters]
    try:
        yield copies
    finally:
        with torch.no_grad():
            for parameter, copy in zip(bench.optimizer.parameters, copies, strict=True):
                parameter.copy_(copy)
        bench.optimizer.publish()


def finite_update(
    bench: Bench,
    micro_batches: Sequence[MicroBatch],
    *,
    learning_rate: float,
    loss_scale: LossScale | None,
) -> tuple[StepResult, float]:
    """One update by the training step and its seconds, at a loss scale that fp16 can take.

    As in training, fp16 goes over the rows again at half the scale while a gradient overflows;
    the seconds are of the last time. The result may still not be applied.
    """
    while True:
        synchronize(bench.device)
        started = time.perf_counter()
        result = training_step(
            bench.model,
            micro_batches,
            bench.optimizer,
            learning_rate=learning_rate,
            max_grad_norm=bench.settings.max_grad_norm,
            precision=bench.settings.precision,
            device=bench.device,
            loss_scale=loss_scale,
        )
        synchronize(bench.device)
        seconds = time.perf_counter() - started
        is_hopeless = (
            loss_scale is None
            or not math.isfinite(result.loss)
            or loss_scale.num_skips_in_a_row >= MAX_SKIPS_IN_A_ROW
        )
        if result.applied or is_hopeless:
            return result, seconds


def first_loss_scale(bench: Bench) -> LossScale | None:
    return new_loss_scale(bench.settings.precision)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
