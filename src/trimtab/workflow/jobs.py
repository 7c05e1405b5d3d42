"""From settings and materials to a job that the engine can run, and again in a safer precision."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from trimtab.data.batches import Batching
from trimtab.engine.loop import Job
from trimtab.engine.optimizer import make_optimizer
from trimtab.engine.precision import LossScale, weight_dtype
from trimtab.engine.schedule import make_schedule
from trimtab.hyperparameters.config import Precision
from trimtab.models.adapters import Model, add_lora
from trimtab.models.checkpointing import set_activation_checkpointing
from trimtab.models.loading import load_model
from trimtab.planning.questions import TrainingRowsQuestion
from trimtab.planning.settings import Settings
from trimtab.runs.folder import RunFolder
from trimtab.workflow.materials import Materials, TrainingRows


def rows_question(settings: Settings) -> TrainingRowsQuestion:
    """The question whose answer are the rows that these settings train on."""
    separate = isinstance(settings.eval_dataset, str) and settings.eval_dataset != "none"
    return TrainingRowsQuestion(
        max_length=settings.max_length,
        truncation_mode=settings.truncation_mode,
        packing=settings.packing,
        num_eval_rows=settings.num_eval_rows,
        eval_dataset=str(settings.eval_dataset) if separate else "",
        data_seed=settings.data_seed,
    )


def batching(settings: Settings) -> Batching:
    return Batching(
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


def build_model(settings: Settings, materials: Materials) -> Model:
    """The model with its adapters and checkpointing, seeded; ready to train."""
    torch.manual_seed(settings.seed)
    base = load_model(
        materials.source,
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


def make_job(settings: Settings, materials: Materials, rows: TrainingRows, run: RunFolder) -> Job:
    """Everything that the engine's loop needs."""
    model = build_model(settings, materials)
    return Job(
        settings=settings,
        model=model,
        optimizer=make_optimizer(model, settings),
        schedule=make_schedule(settings),
        device=torch.device(settings.device),
        train_rows=rows.train,
        eval_rows=rows.eval,
        batching=batching(settings),
        checkpoints=run.checkpoints,
    )


def new_loss_scale(precision: Precision) -> LossScale | None:
    return LossScale() if precision == "fp16" else None
