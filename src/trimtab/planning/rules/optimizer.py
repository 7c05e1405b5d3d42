"""The optimizer, its constants, and what weight decay reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.hyperparameters.config import Optimizer, TrainingConfig
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Decision
from trimtab.planning.fact import Facts
from trimtab.planning.rules.lora import adapter_weights
from trimtab.planning.rules.ruling import Ruling, decision, percent
from trimtab.planning.rules.shape import num_head_weights, num_linear_weights

_TOLD: Mapping[Optimizer, str] = {
    "adamw": "AdamW, two fp32 moments a trained weight",
    "adam": "Adam: weight decay is an L2 term in the gradient",
    "sgd": "plain gradient steps, no state",
    "adafactor": "second moments as sums of rows and columns; steps relative to the weights' size",
    "muon": "orthogonalised momentum for matrices, AdamW for the rest",
    "adamw_8bit": "AdamW with 8-bit moments, from the extra bitsandbytes",
    "lion": "the sign of a momentum, from the extra pytorch-optimizer",
    "adamw_schedule_free": "AdamW that averages weights, from the extra pytorch-optimizer",
}
_USED_CONSTANTS: Mapping[Optimizer, frozenset[str]] = {
    "adamw": frozenset({"adam_beta1", "adam_beta2", "adam_epsilon"}),
    "adam": frozenset({"adam_beta1", "adam_beta2", "adam_epsilon"}),
    "sgd": frozenset(),
    "adafactor": frozenset(),
    "muon": frozenset({"adam_beta1", "adam_beta2", "adam_epsilon"}),
    "adamw_8bit": frozenset({"adam_beta1", "adam_beta2", "adam_epsilon"}),
    "lion": frozenset({"adam_beta1"}),
    "adamw_schedule_free": frozenset({"adam_beta1", "adam_beta2", "adam_epsilon"}),
}
_CONSTANT_LIMITS: Mapping[str, str] = {
    "adam_beta1": "no other value is tried",
    "adam_beta2": "no other value is tried; rules that keep its half-life in tokens (2025, arXiv "
    "2507.07101) ask for one far past a short run's length",
    "adam_epsilon": "no other value is tried",
}


def decide_optimizer(resolved: ResolvedConfig, facts: Facts) -> Ruling:
    """`optim`, `weight_decay`, `adam_beta1`, `adam_beta2`, `adam_epsilon`, `max_grad_norm`."""
    config = resolved.config
    optim = config.optim
    told = _TOLD[optim]
    if not resolved.is_set("optim"):
        told += "; the optimizer of the published sweeps that the learning rate rests on"
    constants = {
        "adam_beta1": (config.adam_beta1, "AdamW's own default"),
        "adam_beta2": (config.adam_beta2, "AdamW's own default"),
        "adam_epsilon": (config.adam_epsilon, "AdamW's own default"),
    }
    used = _used_constants(config)
    norm = config.max_grad_norm
    return Ruling(
        (
            decision(resolved, "optim", optim, "default", told),
            _weight_decay(resolved, facts),
            *(_constant(resolved, name, *constants[name]) for name in constants),
            decision(
                resolved,
                "max_grad_norm",
                norm,
                "default",
                f"longer gradients are scaled down to {norm:g}" if norm else "clipping is off",
            ),
        ),
        warnings=tuple(
            f"{name} has no effect under optim: {_told_optim(config)}."
            for name in constants
            if name not in used and resolved.is_set(name)
        ),
    )


def _used_constants(config: TrainingConfig) -> frozenset[str]:
    """Adapters are matrices alone, which leaves Muon no rest for AdamW."""
    if config.optim == "muon" and config.method == "lora":
        return frozenset()
    return _USED_CONSTANTS[config.optim]


def _told_optim(config: TrainingConfig) -> str:
    needs_method = _used_constants(config) != _USED_CONSTANTS[config.optim]
    return f"{config.optim} with method: {config.method}" if needs_method else config.optim


def _constant(resolved: ResolvedConfig, name: str, value: Any, default: str) -> Decision:
    config = resolved.config
    if name not in _used_constants(config):
        told = f"not used: optim is {_told_optim(config)}"
        return decision(resolved, name, value, "default", told)
    because = "" if resolved.is_set(name) else default
    return decision(resolved, name, value, "default", because, limits=_CONSTANT_LIMITS[name])


def _weight_decay(resolved: ResolvedConfig, facts: Facts) -> Decision:
    decay = float(resolved.config.weight_decay)
    if resolved.config.method == "lora":
        num_trained = num_decayed = adapter_weights(resolved, facts)
    else:
        num_trained = facts.integer("model.num_parameters")
        num_decayed = num_linear_weights(facts)
        if not facts.value("model.head_is_tied"):
            num_decayed += num_head_weights(facts)
    kind = "L2 term" if resolved.config.optim in {"adam", "sgd"} else "decoupled"
    reach = (
        f"{num_decayed:,} of {num_trained:,} trained weights "
        f"({percent(num_decayed, num_trained)}); biases, norms and embeddings are exempt"
    )
    if decay:
        because = f"{kind}, on {reach}"
    else:
        because = f"off, as in Hugging Face's default; it would reach {reach}"
    return decision(
        resolved,
        "weight_decay",
        decay,
        "default",
        because,
        facts=("model.linear_modules",),
        limits="no other value is tried on this run",
    )
