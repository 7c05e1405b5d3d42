from __future__ import annotations

from typing import Any

import pytest

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import aliases, catalogue
from trimtab.hyperparameters.layers import ResolvedConfig, resolve
from trimtab.hyperparameters.translations import FOREIGN

REQUIRED = {"model": "m", "dataset": "d"}

SAMPLES: dict[str, Any] = {
    "model": "other",
    "method": "full",
    "dataset": "rows.jsonl",
    "dataset_columns": {"prompt": "question"},
    "eval_dataset": 0.1,
    "max_length": 512,
    "packing": True,
    "per_device_train_batch_size": 3,
    "per_device_eval_batch_size": 3,
    "num_train_epochs": 2.0,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "cosine",
    "optim": "sgd",
    "activation_checkpointing": 2,
    "lora_r": 8,
    "target_modules": ("q_proj",),
    "eval_strategy": "epoch",
}


def resolved(**values: Any) -> ResolvedConfig:
    required = {
        name: value for name, value in REQUIRED.items() if aliases_of(name).isdisjoint(values)
    }
    return resolve(values={**required, **values})


def aliases_of(name: str) -> set[str]:
    return {name, *catalogue()[name].declaration.aliases}


@pytest.mark.parametrize("alias", list(aliases()))
def test_every_alias_sets_its_hyperparameter(alias: str) -> None:
    name = aliases()[alias]
    found = resolved(**{alias: SAMPLES[name]})
    assert dict(found.config)[name] == SAMPLES[name]
    assert dict(found.config)[name] != catalogue()[name].default
    assert found.is_set(name)


TRANSLATED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"bf16": True}, {"precision": "bf16"}),
    ({"fp16": True}, {"precision": "fp16"}),
    ({"bf16": True, "fp16": False}, {"precision": "bf16"}),
    ({"bf16": False, "fp16": True}, {"precision": "fp16"}),
    ({"bf16": False, "fp16": False}, {"precision": "fp32"}),
    ({"bf16": "auto", "fp16": None}, {"precision": "auto"}),
    ({"fp16": None}, {"precision": "auto"}),
    ({"gradient_checkpointing": True}, {"activation_checkpointing": "full"}),
    ({"gradient_checkpointing": False}, {"activation_checkpointing": "off"}),
    ({"activation_checkpointing": True}, {"activation_checkpointing": "full"}),
    ({"padding_free": True}, {"padding": "none"}),
    ({"padding_free": False}, {"padding": "longest"}),
    ({"train_on_inputs": True}, {"completion_only_loss": False, "assistant_only_loss": False}),
    ({"train_on_inputs": False}, {"completion_only_loss": True, "assistant_only_loss": True}),
    ({"use_cpu": True}, {"device": "cpu"}),
    ({"use_cpu": False}, {"device": "auto"}),
    ({"lora_target_linear": True}, {"target_modules": "all-linear"}),
    ({"lora_target": "all"}, {"target_modules": "all-linear"}),
    ({"lora_target": "q_proj, v_proj"}, {"target_modules": ("q_proj", "v_proj")}),
    ({"optim": "adamw_torch"}, {"optim": "adamw"}),
    ({"optim": "adamw_torch_fused"}, {"optim": "adamw"}),
    ({"optimizer": "adamw_bnb_8bit"}, {"optim": "adamw_8bit"}),
    ({"optim": "lion_32bit"}, {"optim": "lion"}),
    ({"optim": "schedule_free_adamw"}, {"optim": "adamw_schedule_free"}),
    ({"val_set_size": 0}, {"eval_dataset": "none"}),
    ({"eval_strategy": False}, {"eval_strategy": "no"}),
    ({"warmup_ratio": 0.1}, {"warmup_ratio": 0.1, "warmup_steps": "auto"}),
    ({"load_in_4bit": False, "load_in_8bit": None}, {}),
    ({"report_to": "none", "save_strategy": "steps", "packing_strategy": "bfd"}, {}),
    ({"report_to": ["wandb"]}, {"report_to": "wandb"}),
    ({"report_to": []}, {}),
    ({"resume_from_checkpoint": None, "push_to_hub": False, "deepspeed": None}, {}),
    ({"logging_strategy": "steps", "logging_dir": None}, {}),
    ({"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}, {}),
    ({"early_stopping_patience": None, "neftune_noise_alpha": None}, {}),
    ({"dataloader_num_workers": 0, "remove_unused_columns": True}, {}),
]


@pytest.mark.parametrize(("written", "meant"), TRANSLATED)
def test_other_tools_values_are_translated(written: dict[str, Any], meant: dict[str, Any]) -> None:
    config = dict(resolved(**written).config)
    plain = dict(resolved().config)
    assert config == {**plain, **meant}


def test_every_foreign_name_is_tried() -> None:
    assert set(FOREIGN) <= {name for written, _ in TRANSLATED for name in written}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"method": "qlora"}, "use lora or full"),
    ({"adapter": "qlora"}, "use lora or full"),
    ({"load_in_4bit": True}, "use method lora or full"),
    ({"load_in_8bit": True}, "use method lora or full"),
    ({"load_in_4bit": 0}, "use method lora or full"),
    ({"optim": "paged_adamw_8bit"}, "adamw_8bit"),
    ({"optim": "rmsprop"}, "adamw_schedule_free"),
    ({"bf16": "yes"}, "true, false or auto"),
    ({"padding_free": 1}, "true or false"),
    ({"train_on_inputs": "no"}, "true or false"),
    ({"report_to": ["wandb", "mlflow"]}, "tensorboard, wandb or mlflow"),
    ({"packing_strategy": "wrapped"}, "best-fit decreasing"),
    ({"save_strategy": "epoch"}, "save_steps"),
    ({"resume_from_checkpoint": True}, "trimtab resume"),
    ({"push_to_hub": True}, "a run uploads nothing"),
    ({"deepspeed": "ds.json"}, "--num-processes"),
    ({"load_best_model_at_end": False}, "lowest held-out loss are handed over"),
    ({"early_stopping_patience": 3}, "no run ends early"),
    ({"dataloader_num_workers": 4}, "remove this line"),
    ({"val_size": 500}, "a number > 0 and < 1"),
    ({"lora_target": ".*_proj$"}, "a list of names"),
]


@pytest.mark.parametrize(("written", "words"), REFUSED)
def test_what_is_not_there_is_refused_with_what_is(written: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(**written)
    assert words in str(caught.value)
    assert next(iter(written)) in str(caught.value)


TWICE: list[tuple[dict[str, Any], tuple[str, str]]] = [
    ({"learning_rate": 1e-4, "lr": 1e-4}, ("learning_rate", "lr")),
    ({"max_seq_length": 5, "cutoff_len": 5}, ("max_seq_length", "cutoff_len")),
    ({"bf16": True, "fp16": True}, ("bf16", "fp16")),
    ({"bf16": True, "precision": "bf16"}, ("bf16", "precision")),
    ({"padding": "none", "padding_free": True}, ("padding", "padding_free")),
    ({"train_on_inputs": True, "completion_only_loss": False}, ("train_on_inputs", "completion")),
    ({"device": "cpu", "use_cpu": True}, ("device", "use_cpu")),
]


@pytest.mark.parametrize(("written", "names"), TWICE)
def test_one_thing_under_two_names_is_refused(
    written: dict[str, Any], names: tuple[str, str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(**written)
    assert all(name in caught.value.what for name in names)
