"""Concrete settings for tests of the engine, without a planner."""

from __future__ import annotations

from typing import Any

from trimtab.planning.settings import Settings

_DEFAULTS: dict[str, Any] = {
    "model": "tiny",
    "method": "full",
    "trust_remote_code": False,
    "chat_template": "auto",
    "dataset": "rows.jsonl",
    "dataset_split": "train",
    "dataset_format": "text",
    "dataset_columns": {},
    "dataset_text_field": "text",
    "eval_dataset": "none",
    "num_eval_rows": 0,
    "completion_only_loss": True,
    "assistant_only_loss": True,
    "on_bad_row": "stop",
    "max_length": 64,
    "truncation_mode": "keep_start",
    "packing": False,
    "padding": "none",
    "padding_side": "right",
    "pad_token": "<|reserved_0|>",
    "pad_token_id": 5,
    "pad_to_multiple_of": None,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "global_batch_size": 4,
    "parallelism": "replicate",
    "num_ranks": 1,
    "num_train_epochs": 1.0,
    "num_train_steps": 10,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "lr_scheduler_kwargs": {},
    "warmup_steps": 0,
    "optim": "adamw",
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "on_loss_spike": "stop",
    "precision": "fp32",
    "activation_checkpointing": "off",
    "device": "cpu",
    "memory_limit": 8 * 2**30,
    "lora_r": 4,
    "lora_alpha": 32.0,
    "lora_dropout": 0.0,
    "target_modules": "all-linear",
    "output_dir": "runs/test",
    "seed": 42,
    "data_seed": 42,
    "eval_strategy": "steps",
    "eval_steps": 0,
    "save_steps": 0,
    "save_total_limit": 2,
    "logging_steps": 10,
    "report_to": "none",
    "report_samples": 0,
    "max_new_tokens": 8,
}


def tiny_settings(**changes: Any) -> Settings:
    """Settings with the given values changed; a name that is no setting raises TypeError."""
    unknown = changes.keys() - _DEFAULTS.keys()
    if unknown:
        raise TypeError(f"no such settings: {sorted(unknown)}")
    return Settings.from_values({**_DEFAULTS, **changes})
