"""LLaMA-Factory's second layout, with `model` and `train_dataset` and groups such as `peft_config`.

After `src/llamafactory/v1/config/` of its repository.
"""

from __future__ import annotations

from typing import Any, Final

from trimtab.hyperparameters.reading import Setting
from trimtab.interop.dialects.hugging_face import (
    LOADING,
    LOGGING,
    NO_PART,
    SAVING,
    SEVERAL_DEVICES,
    SPEED,
    take_length,
)
from trimtab.interop.translating import (
    Dialect,
    Loss,
    Reading,
    Values,
    harmless,
    lossy,
    same,
)


def _begin(reading: Reading) -> None:
    take_length(reading)
    _group(reading, "peft_config", _PEFT)
    _group(reading, "lr_scheduler_config", _SCHEDULER)
    _group(reading, "optim_config", _OPTIMIZER)


def _group(reading: Reading, name: str, keys: dict[str, str]) -> None:
    """A mapping of keys; those that have no counterpart are lost one by one."""
    setting = reading.take(name)
    if setting is None:
        return
    if not isinstance(setting.value, dict):
        reading.lose(setting, Loss("not a mapping", changes_result=True))
        return
    for key, value in setting.value.items():
        if value is None:
            continue
        one = Setting(f"{name}.{key}", value, setting.where)
        if key in keys:
            reading.apply(one, same(keys[key]))
        else:
            reading.lose(one, Loss("no counterpart", changes_result=True))


_PEFT: Final = {
    "name": "method",
    "r": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "target_modules",
}
_SCHEDULER: Final = {"name": "lr_scheduler_type"}
_OPTIMIZER: Final = {"name": "optim", "wd": "weight_decay", "weight_decay": "weight_decay"}


def _train_dataset(value: Any) -> Values:
    if isinstance(value, str) and value.endswith((".yaml", ".yml")):
        raise Loss(
            "a list of datasets in a file of its own: give the rows by --dataset",
            changes_result=True,
            about=("dataset",),
        )
    return {"dataset": value}


LLAMA_FACTORY_V1: Final = Dialect(
    name="llamafactory-v1",
    title="LLaMA-Factory's v1",
    markers=frozenset({"model_class", "train_dataset", "dist_config", "quant_config"}),
    begin=_begin,
    fields={
        "model": same("model"),
        "model_class": lossy("causal language models are trained", "llm"),
        "train_dataset": _train_dataset,
        "template": lambda value: {"chat_template": "model"},
        "cutoff_len": same("max_length"),
        "learning_rate": same("learning_rate"),
        "micro_batch_size": same("per_device_train_batch_size"),
        "global_batch_size": same("global_batch_size"),
        "num_train_epochs": same("num_train_epochs"),
        "max_grad_norm": same("max_grad_norm"),
        "weight_decay": same("weight_decay"),
        "seed": same("seed"),
        "output_dir": same("output_dir"),
        "save_steps": same("save_steps"),
        "logging_steps": same("logging_steps"),
        "trust_remote_code": same("trust_remote_code"),
        "bf16": lambda value: {"precision": "bf16"} if value is True else {},
        "enable_activation_checkpointing": same("activation_checkpointing"),
        "batching_strategy": lossy("rows are joined or packed by `packing`", "normal"),
        "batching_workers": LOADING,
        "save_epochs": SAVING,
        "save_total_limit": same("save_total_limit"),
        "quant_config": lossy("nothing is quantised", about=("method",)),
        "init_config": lossy("the model is loaded whole", {"name": "init_on_rank0"}),
        "kernel_config": SPEED,
        "flash_attn": SPEED,
        "dist_config": SEVERAL_DEVICES,
        "cp_size": SEVERAL_DEVICES,
        "cp_mode": SEVERAL_DEVICES,
        "report_to": LOGGING,
        "sample_backend": NO_PART,
        "max_new_tokens": harmless("how samples are generated"),
    },
    prefixes={},
    defaults={
        "per_device_train_batch_size": 1,
        "num_train_epochs": 3,
        "learning_rate": 1e-4,
        "max_length": 2048,
        "eval_dataset": "none",
        "method": "full",
    },
)
