"""Optimizers, and which weights decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from trimtab.engine.masters import has_masters, take_masters
from trimtab.engine.precision import COMPUTE_DTYPES
from trimtab.hyperparameters.packages import check_optimizer_package
from trimtab.models.sharding import is_sharded
from trimtab.planning.settings import LION_BETA2, Settings


@dataclass(frozen=True, slots=True)
class WeightGroups:
    """The trainable parameters by whether weight decay applies; names as the model's own."""

    decayed: Mapping[str, nn.Parameter]
    exempt: Mapping[str, nn.Parameter]

    @property
    def num_decayed(self) -> int:
        return sum(parameter.numel() for parameter in self.decayed.values())

    @property
    def num_exempt(self) -> int:
        return sum(parameter.numel() for parameter in self.exempt.values())


def weight_groups(model: nn.Module) -> WeightGroups:
    """Matrices decay; biases, norms and embeddings (and a head tied to one) do not."""
    embeddings = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)
    }
    decayed: dict[str, nn.Parameter] = {}
    exempt: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim >= 2 and id(parameter) not in embeddings
            (decayed if is_matrix else exempt)[name] = parameter
    return WeightGroups(decayed, exempt)


@dataclass(frozen=True, slots=True)
class OptimizerSet:
    """One or more torch optimizers that together update every trainable weight once.

    `weights` are all of them by the model's names, in the order that checkpoints rely on: the
    model's own or their fp32 masters. Whoever writes to them calls `publish` afterwards, which puts
    masters into the model. `for_training` and `for_evaluation` swap the weights where the method
    keeps two sets of them (schedule-free).
    """

    optimizers: tuple[Optimizer, ...]
    weights: Mapping[str, nn.Parameter]
    publish: Callable[[], None]
    for_training: Callable[[], None]
    for_evaluation: Callable[[], None]

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        return tuple(self.weights.values())

    def step(self, learning_rate: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        self.publish()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)


def make_optimizer(model: nn.Module, settings: Settings) -> OptimizerSet:
    """The optimizer that `settings.optim` names, over the model's trainable parameters.

    Where the settings have masters, the model's trained weights are in 16 bits afterwards: once a
    model. Shards stay fp32. Raises ConfigError where it needs a package that is not installed.
    """
    check_optimizer_package(settings.optim)
    groups = weight_groups(model)
    weights = {**groups.decayed, **groups.exempt}
    publish = _nothing
    if has_masters(settings.precision, settings.method) and not is_sharded(weights.values()):
        weights, publish = take_masters(weights, COMPUTE_DTYPES[settings.precision])
        groups = WeightGroups(
            {name: weights[name] for name in groups.decayed},
            {name: weights[name] for name in groups.exempt},
        )
    if settings.optim == "muon":
        optimizers = _muon(groups, settings)
    else:
        optimizers = (_BUILDERS[settings.optim](_decay_groups(groups, settings), settings),)
    if settings.optim == "adamw_schedule_free":
        return _schedule_free(optimizers[0], weights, publish)
    return OptimizerSet(optimizers, weights, publish, _nothing, _nothing)


def _schedule_free(
    optimizer: Any, weights: Mapping[str, nn.Parameter], publish: Callable[[], None]
) -> OptimizerSet:
    """The averaged weights are computed from those in training and back again, which rounds.

    So the ones in training are set aside meanwhile: a run is then the same however often it is
    evaluated, and one that is stopped in a held-out pass resumes exactly.
    """
    optimizer.train()
    set_aside: list[torch.Tensor] = []

    def for_evaluation() -> None:
        if not set_aside:
            set_aside.extend(weight.detach().clone() for weight in weights.values())
            optimizer.eval()
            publish()

    @torch.no_grad()
    def for_training() -> None:
        optimizer.train()
        for weight, value in zip(weights.values(), set_aside, strict=False):
            weight.copy_(value)
        set_aside.clear()
        publish()

    return OptimizerSet((optimizer,), weights, publish, for_training, for_evaluation)


def _nothing() -> None:
    """Most methods train, evaluate and hold in the model the same weights."""


def _decay_groups(groups: WeightGroups, settings: Settings) -> list[dict[str, Any]]:
    return _non_empty(
        [
            {"params": list(groups.decayed.values()), "weight_decay": settings.weight_decay},
            {"params": list(groups.exempt.values()), "weight_decay": 0.0},
        ]
    )


def _non_empty(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]


def _adam_arguments(settings: Settings) -> dict[str, Any]:
    return {
        "lr": settings.learning_rate,
        "betas": (settings.adam_beta1, settings.adam_beta2),
        "eps": settings.adam_epsilon,
    }


def _adamw(groups: list[dict[str, Any]], settings: Settings) -> Optimizer:
    return torch.optim.AdamW(groups, fused=True, **_adam_arguments(settings))


def _adam(groups: list[dict[str, Any]], settings: Settings) -> Optimizer:
    return torch.optim.Adam(groups, fused=True, **_adam_arguments(settings))


def _sgd(groups: list[dict[str, Any]], settings: Settings) -> Optimizer:
    return torch.optim.SGD(groups, lr=settings.learning_rate)


def _adafactor(groups: list[dict[str, Any]], settings: Settings) -> Optimizer:
    return torch.optim.Adafactor(groups, lr=settings.learning_rate)


def _adamw_8bit(groups: list[dict[str, Any]], settings: Settings) -> Optimizer:
    from bitsandbytes.optim import AdamW8bit

    optimizer: Optimizer = AdamW8bit(groups, **_adam_arguments(settings))
    return optimizer


def _lion(groups: list[dict[str, Any]], settings: Settings) -> Optimizer:
    from pytorch_optimizer import Lion

    optimizer: Optimizer = Lion(
        groups,
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, LION_BETA2),
        weight_decouple=True,
    )
    return optimizer


def _adamw_schedule_free(groups: list[dict[str, Any]], settings: Settings) -> Optimizer:
    from pytorch_optimizer import ScheduleFreeAdamW

    optimizer: Optimizer = ScheduleFreeAdamW(groups, **_adam_arguments(settings))
    return optimizer


_BUILDERS: Mapping[str, Callable[[list[dict[str, Any]], Settings], Optimizer]] = {
    "adamw": _adamw,
    "adam": _adam,
    "sgd": _sgd,
    "adafactor": _adafactor,
    "adamw_8bit": _adamw_8bit,
    "lion": _lion,
    "adamw_schedule_free": _adamw_schedule_free,
}


def _muon(groups: WeightGroups, settings: Settings) -> tuple[Optimizer, ...]:
    """Muon for matrices, AdamW for the rest.

    `match_rms_adamw` scales Muon's update to AdamW's size, so that one learning rate serves both
    (Muon is Scalable for LLM Training, 2025, arXiv 2502.16982).
    """
    is_matrix = {name: parameter.ndim == 2 for name, parameter in groups.decayed.items()}
    matrices = [p for name, p in groups.decayed.items() if is_matrix[name]]
    others = {name: p for name, p in groups.decayed.items() if not is_matrix[name]}
    optimizers: list[Optimizer] = []
    if matrices:
        optimizers.append(
            torch.optim.Muon(
                matrices,
                lr=settings.learning_rate,
                weight_decay=settings.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    rest = _decay_groups(WeightGroups(others, groups.exempt), settings)
    if rest:
        optimizers.append(_adamw(rest, settings))
    return tuple(optimizers)
