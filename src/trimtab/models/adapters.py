"""LoRA adapters through peft, and which modules can carry them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trimtab.errors import ConfigError
from trimtab.models.lora_linear import fuse_adapted_linears
from trimtab.planning.module_names import is_named

ALL_LINEAR = "all-linear"

Model = PreTrainedModel | PeftModel
"""What training works on: the model itself, or under its adapters."""


def causal_model(model: Model) -> PreTrainedModel:
    """The transformers model, under its adapters where it has some."""
    if isinstance(model, PeftModel):
        base = model.get_base_model()
        assert isinstance(base, PreTrainedModel)
        return base
    return model


def linear_modules(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear | Conv1D]]:
    """Every linear module but the output head, with its full name: what `all-linear` adapts."""
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            yield name, module


def trainable_parameters(model: Model) -> dict[str, nn.Parameter]:
    """The parameters that training moves, by name; tied ones once."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


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
    weights' dtype; their values come from `seed` alone, the same on every device and beside every
    dtype, and the global random state is left alone.

    Raises ConfigError where a name matches no linear module.
    """
    modules = dict(linear_modules(model))
    if not isinstance(target_modules, str):
        _check_targets(target_modules, list(modules))
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,  # type: ignore[arg-type]
        lora_dropout=dropout,
        target_modules=target_modules if isinstance(target_modules, str) else list(target_modules),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in modules.values()),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), _without_renamed_warning():
        torch.default_generator.manual_seed(seed)
        adapted: PeftModel = get_peft_model(model, config, autocast_adapter_dtype=True)
        # peft has put the first values through the frozen weights' dtype.
        torch.default_generator.manual_seed(seed)
        for module in adapted.modules():
            if isinstance(module, LoraLayer):
                module.reset_lora_parameters(  # type: ignore[no-untyped-call]
                    "default", config.init_lora_weights
                )
    if not isinstance(config.target_modules, str):
        # As the set that peft makes of it, it would be written in another order by each process.
        config.target_modules = sorted(config.target_modules or ())
    fuse_adapted_linears(adapted)
    return adapted


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The model under the adapter that `save_result` wrote into the folder."""
    with _without_renamed_warning():
        adapted: PeftModel = PeftModel.from_pretrained(model, folder)
    return adapted


@contextmanager
def _without_renamed_warning() -> Iterator[None]:
    """peft asks transformers by a name that transformers has since replaced."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def _check_targets(targets: tuple[str, ...], names: list[str]) -> None:
    unknown = [target for target in targets if not any(is_named(name, target) for name in names)]
    if unknown:
        suffixes = sorted({name.rpartition(".")[2] for name in names})
        raise ConfigError(
            f"target_modules: the model has no linear module named {', '.join(unknown)}.",
            hint=f"Its linear modules are {', '.join(suffixes)}; or write {ALL_LINEAR}.",
        )
