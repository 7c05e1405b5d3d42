"""LoRA adapters through peft."""

from __future__ import annotations

from typing import Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from trimtab.errors import ConfigError

Model = PreTrainedModel | PeftModel
"""What training works on: the model itself, or under its adapters."""


def causal_model(model: Model) -> PreTrainedModel:
    """The transformers model, under its adapters where it has some."""
    if isinstance(model, PeftModel):
        base: PreTrainedModel = model.get_base_model()
        return base
    return model


def add_lora(
    model: PreTrainedModel,
    *,
    r: int,
    alpha: float,
    dropout: float,
    target_modules: Literal["all-linear"] | tuple[str, ...],
    seed: int,
) -> PeftModel:
    """Freeze the model and put adapters of rank `r` beside the target modules.

    `all-linear` is every linear module but the output head. Adapters are fp32 whatever the frozen
    weights' dtype; their values come from `seed`, and the global random state is left alone.
    Raises ConfigError where a name matches no module.
    """
    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    _check_targets(model, targets)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted: PeftModel = get_peft_model(model, config, autocast_adapter_dtype=True)
    return adapted


def _check_targets(model: PreTrainedModel, targets: str | list[str]) -> None:
    if isinstance(targets, str):
        return
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    full_names = {name for name, _ in model.named_modules()}
    unknown = [
        target
        for target in targets
        if target not in names and not any(name.endswith(f".{target}") for name in full_names)
    ]
    if unknown:
        linear = sorted(
            {
                name.rpartition(".")[2]
                for name, module in model.named_modules()
                if isinstance(module, torch.nn.Linear)
            }
        )
        raise ConfigError(
            f"target_modules: the model has no module named {', '.join(unknown)}.",
            hint=f"Its linear modules are {', '.join(linear)}; or write all-linear.",
        )
