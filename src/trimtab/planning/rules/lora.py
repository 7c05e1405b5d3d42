"""The adapters: rank, scale, dropout and where they stand."""

from __future__ import annotations

from trimtab.errors import ConfigError
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Alternative, Decision
from trimtab.planning.fact import Facts
from trimtab.planning.rules.ruling import Ruling, counted, decision, percent, where_set
from trimtab.planning.rules.shape import (
    LinearModules,
    linear_modules,
    num_adapter_weights,
    targeted,
)

AUTO_R = 16
AUTO_ALPHA = 32.0
LARGE_SHARE = 0.5
_NAMES = ("lora_r", "lora_alpha", "lora_dropout", "target_modules")


def adapter_weights(resolved: ResolvedConfig, facts: Facts) -> int:
    """How many weights the adapters have. Raises ConfigError where a target is no module."""
    config = resolved.config
    rank = AUTO_R if config.lora_r == "auto" else config.lora_r
    return num_adapter_weights(_targets(resolved, facts), rank)


def decide_lora(resolved: ResolvedConfig, facts: Facts) -> Ruling:
    """`lora_r`, `lora_alpha`, `lora_dropout`, `target_modules`.

    Under `method: full` they are decided and marked as not used. Raises ConfigError where
    a name among `target_modules` is no linear module of the model.
    """
    config = resolved.config
    rank = AUTO_R if config.lora_r == "auto" else config.lora_r
    alpha = AUTO_ALPHA if config.lora_alpha == "auto" else float(config.lora_alpha)
    if config.method == "full":
        return _unused(resolved, rank, alpha)
    modules = _targets(resolved, facts)
    num_weights = num_adapter_weights(modules, rank)
    num_parameters = facts.integer("model.num_parameters")
    size = (
        f"adapters of {num_weights:,} weights, "
        f"{percent(num_weights, num_parameters)} of the model's {num_parameters:,}"
    )
    warnings = []
    if num_weights > LARGE_SHARE * num_parameters:
        warnings.append(f"lora_r {rank} makes {size}: a low rank is what saves work.")
    names = ", ".join(dict.fromkeys(module.suffix for module in modules))
    num_modules = sum(module.count for module in modules)
    decisions = (
        decision(
            resolved,
            "lora_r",
            rank,
            "rule",
            size,
            facts=("model.linear_modules", "model.num_parameters"),
            alternatives=(
                Alternative(rank * 4, f"{num_adapter_weights(modules, rank * 4):,} weights"),
            ),
            limits="no other rank was tried",
        ),
        decision(
            resolved,
            "lora_alpha",
            alpha,
            "rule",
            f"scale {alpha:g} ÷ {rank} = {alpha / rank:.3g}; at alpha {AUTO_ALPHA:g} the best "
            "learning rate hardly moves with the rank (LoRA Without Regret, 2025)",
        ),
        decision(
            resolved,
            "lora_dropout",
            config.lora_dropout,
            "default",
            "no adapter input is dropped"
            if config.lora_dropout == 0
            else f"{config.lora_dropout:.0%} of the adapters' inputs are dropped in training",
        ),
        decision(
            resolved,
            "target_modules",
            config.target_modules
            if config.target_modules == "all-linear"
            else list(config.target_modules),
            "default",
            f"{counted(num_modules, 'module')}: {names}",
            facts=("model.linear_modules",),
        ),
    )
    return Ruling(decisions, tuple(warnings))


def _unused(resolved: ResolvedConfig, rank: int, alpha: float) -> Ruling:
    targets = resolved.config.target_modules
    values = {
        "lora_r": rank,
        "lora_alpha": alpha,
        "lora_dropout": resolved.config.lora_dropout,
        "target_modules": targets if targets == "all-linear" else list(targets),
    }
    decisions: tuple[Decision, ...] = tuple(
        decision(resolved, name, value, "default", "not used: method is full")
        for name, value in values.items()
    )
    return Ruling(
        decisions,
        tuple(
            f"{name} has no effect: method is full." for name in _NAMES if resolved.is_given(name)
        ),
    )


def _targets(resolved: ResolvedConfig, facts: Facts) -> tuple[LinearModules, ...]:
    modules, targets = linear_modules(facts), resolved.config.target_modules
    if targets == "all-linear":
        return modules
    unknown = [target for target in targets if not targeted(modules, (target,))]
    if unknown:
        names = ", ".join(dict.fromkeys(module.suffix for module in modules))
        raise ConfigError(
            f"target_modules: the model has no linear module named {', '.join(unknown)}.",
            where=where_set(resolved, "target_modules"),
            hint=f"Its linear modules are {names}; or write all-linear.",
        )
    return targeted(modules, targets)
