"""What the engine gets: every value concrete, nothing `auto`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from trimtab.hyperparameters.config import (
    DatasetFormat,
    LossSpikeAnswer,
    Method,
    Optimizer,
    Padding,
    PaddingSide,
    Precision,
    Scheduler,
    TruncationMode,
)

LION_BETA2: Final = 0.99
"""Lion's second decay rate, which is no hyperparameter here."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The run's concrete hyperparameters, one field for each of the catalogue that it executes.

    Names and units are the catalogue's. `num_train_steps` is the number of weight updates that
    `num_train_epochs` or `max_steps` came to; `warmup_steps`, `eval_steps` and `save_steps` are
    whole updates here (0: never). `num_ranks` processes train together.
    """

    model: str
    method: Method
    trust_remote_code: bool
    chat_template: str

    dataset: str
    dataset_split: str
    dataset_format: DatasetFormat
    dataset_columns: Mapping[str, str]
    dataset_text_field: str
    eval_dataset: float | str
    num_eval_rows: int
    completion_only_loss: bool
    assistant_only_loss: bool
    on_bad_row: Literal["stop", "skip"]

    max_length: int
    truncation_mode: TruncationMode
    packing: bool
    padding: Padding
    padding_side: PaddingSide
    pad_token: str
    pad_token_id: int
    pad_to_multiple_of: int | None

    per_device_train_batch_size: int
    per_device_eval_batch_size: int
    gradient_accumulation_steps: int
    global_batch_size: int
    parallelism: Literal["replicate", "shard"]
    num_ranks: int

    num_train_epochs: float
    num_train_steps: int

    learning_rate: float
    lr_scheduler_type: Scheduler
    lr_scheduler_kwargs: Mapping[str, Any]
    warmup_steps: int

    optim: Optimizer
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    max_grad_norm: float
    on_loss_spike: LossSpikeAnswer

    precision: Precision
    activation_checkpointing: Literal["off", "full"] | int
    device: str
    memory_limit: int

    lora_r: int
    lora_alpha: float
    lora_dropout: float
    target_modules: Literal["all-linear"] | tuple[str, ...]

    output_dir: str
    seed: int
    data_seed: int
    eval_strategy: Literal["steps", "epoch", "no"]
    eval_steps: int
    save_steps: int
    save_total_limit: int
    logging_steps: int
    report_to: Literal["none", "trackio", "tensorboard", "wandb", "mlflow"]
    report_samples: int
    max_new_tokens: int

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Settings:
        """Settings from decided values by name; lists become tuples. KeyError where one lacks."""
        taken = {field.name: values[field.name] for field in fields(cls)}
        if isinstance(taken["target_modules"], list):
            taken["target_modules"] = tuple(taken["target_modules"])
        return cls(**taken)
