from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import aliases, catalogue
from trimtab.hyperparameters.layers import resolve
from trimtab.hyperparameters.schema import json_schema
from trimtab.hyperparameters.translations import FOREIGN

GOOD: list[dict[str, Any]] = [
    {},
    {"learning_rate": 1e-4, "num_train_epochs": 3},
    {"learning_rate": "auto", "max_steps": -1, "warmup_steps": 0.03},
    {"lr": 1e-4, "bf16": True, "fp16": False, "gradient_checkpointing": True},
    {"optim": "adamw_torch", "activation_checkpointing": 2, "memory_limit": "6GiB"},
    {"target_modules": ["q_proj"], "lr_scheduler_kwargs": {"min_lr": 1e-6}},
    {"lora_target": "q_proj,v_proj", "eval_dataset": 0.1, "dataset_columns": {"prompt": "q"}},
    {"val_set_size": 0, "load_in_4bit": False, "report_to": "none", "pad_to_multiple_of": None},
    {"device": "cuda:1", "eval_strategy": "no", "seed": 0},
]
BAD: list[dict[str, Any]] = [
    {"learning_rte": 1e-4},
    {"learning_rate": 0},
    {"learning_rate": "fast"},
    {"lr": -1},
    {"seed": "1"},
    {"seed": -1},
    {"packing": "yes"},
    {"method": "qlora"},
    {"optim": "paged_adamw_8bit"},
    {"memory_limit": "6 bananas"},
    {"device": "mps"},
    {"max_steps": 0},
    {"warmup_steps": 1.5},
    {"target_modules": []},
    {"lora_target": ".*_proj$"},
    {"lr_scheduler_kwargs": {"a": [1]}},
    {"dataset_columns": {"prompt": 1}},
    {"load_in_4bit": True},
    {"load_in_4bit": 0},
    {"bf16": "yes"},
    {"eval_dataset": 3},
    {"output_dir": ""},
    {"warmup_ratio": 1},
]


def takes(config: dict[str, Any]) -> bool:
    return Draft202012Validator(json_schema()).is_valid(config)


def resolves(config: dict[str, Any]) -> bool:
    try:
        resolve(values=config)
    except ConfigError:
        return False
    return True


def test_it_is_a_schema_of_its_draft() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("config", GOOD, ids=str)
def test_good_configurations_are_taken_by_both(config: dict[str, Any]) -> None:
    full = {"model": "m", "dataset": "d", **config}
    assert takes(full)
    assert resolves(full)


@pytest.mark.parametrize("config", BAD, ids=str)
def test_bad_configurations_are_refused_by_both(config: dict[str, Any]) -> None:
    full = {"model": "m", "dataset": "d", **config}
    assert not takes(full)
    assert not resolves(full)


def test_what_is_required_may_stand_under_an_alias() -> None:
    assert takes({"base_model": "m", "train_file": "d"})
    assert not takes({"base_model": "m"})
    assert not takes({})


def test_every_name_is_described() -> None:
    properties = json_schema()["properties"]
    assert set(properties) == set(catalogue()) | set(aliases()) | set(FOREIGN)
    for name, schema in properties.items():
        assert schema["description"].endswith("."), name
    described = properties["learning_rate"]["description"]
    assert catalogue()["learning_rate"].declaration.meaning in described
    assert properties["seed"]["default"] == 42
