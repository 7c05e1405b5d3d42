"""The options with which training is what the runs of a search were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.settings import Settings

BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")


def training_options(
    resolved: ResolvedConfig, values: Mapping[str, Any], settings: Settings
) -> dict[str, Any]:
    """`values` and what the runs held beside them, where the configuration says otherwise.

    `settings` are those of a run of the planned length with `values`. The learning rate is among
    them, as `auto` may be another with another batch, decay or rank. A batch that is moved takes
    the same rows: what was set in updates is scaled, and sizes that were set beside it are those
    of the runs.
    """
    options = {**values, "learning_rate": values.get("learning_rate", settings.learning_rate)}
    if "global_batch_size" not in values:
        return options
    held = {
        "max_steps": settings.num_train_steps,
        "warmup_steps": settings.warmup_steps,
        "lr_scheduler_kwargs": dict(settings.lr_scheduler_kwargs),
        **{name: getattr(settings, name) for name in BATCH},
    }
    for name, value in held.items():
        if _is_in_force(resolved, name, values) and value != getattr(resolved.config, name):
            options[name] = value
    return options


def _is_in_force(resolved: ResolvedConfig, name: str, values: Mapping[str, Any]) -> bool:
    is_moved = name == "warmup_steps" and "warmup_ratio" in values
    is_share = name == "warmup_steps" and isinstance(resolved.config.warmup_steps, float)
    return resolved.is_given(name) and not is_moved and not is_share
