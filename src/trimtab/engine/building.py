"""From settings to a model that is ready to train, and to the layout of its batches."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from trimtab.data.batches import Batching
from trimtab.engine.distributed import ALONE, Ranks
from trimtab.engine.precision import LossScale, weight_dtype
from trimtab.hyperparameters.config import Precision
from trimtab.models.adapters import Model, add_lora
from trimtab.models.checkpointing import set_activation_checkpointing
from trimtab.models.loading import load_model
from trimtab.models.source import ModelSource
from trimtab.planning.settings import Settings


def build_model(settings: Settings, source: ModelSource) -> Model:
    """The model with its adapters and checkpointing, seeded; ready to train.

    Raises ConfigError and DoesNotFit as `load_model` and `add_lora` do.
    """
    torch.manual_seed(settings.seed)
    base = load_model(
        source,
        dtype=weight_dtype(settings.precision, settings.method),
        device=torch.device(settings.device),
        packed_attention=settings.packing or settings.padding == "none",
    )
    return adapted(base, settings)


def adapted(base: PreTrainedModel, settings: Settings) -> Model:
    """The base with the adapters and the checkpointing that the settings ask for."""
    model: Model = base
    if settings.method == "lora":
        model = add_lora(
            base,
            r=settings.lora_r,
            alpha=settings.lora_alpha,
            dropout=settings.lora_dropout,
            target_modules=settings.target_modules,
            seed=settings.seed,
        )
    set_activation_checkpointing(model, settings.activation_checkpointing)
    return model


def batching(settings: Settings, ranks: Ranks = ALONE) -> Batching:
    """The layout of this rank's batches; without `ranks` that of the first of the settings'."""
    return Batching(
        rank=ranks.rank,
        num_ranks=settings.num_ranks,
        even_rounds=not ranks.holds_replica,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        packing=settings.packing,
        max_length=settings.max_length,
        padding=settings.padding,
        padding_side=settings.padding_side,
        pad_token_id=settings.pad_token_id,
        pad_to_multiple_of=settings.pad_to_multiple_of,
        data_seed=settings.data_seed,
    )


def new_loss_scale(precision: Precision) -> LossScale | None:
    """What fp16 needs for its gradients, at its first value; None in other formats."""
    return LossScale() if precision == "fp16" else None
