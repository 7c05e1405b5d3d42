"""What a study may compare, and what is refused with a sentence that helps."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import catalogue
from trimtab.hyperparameters.layers import resolve
from trimtab.study.design import (
    MOVES_BEST_RATE,
    NOT_STUDIED,
    Arms,
    arms_of,
    check_margin,
    check_method,
    check_seeds,
    is_arms_argument,
    read_arms,
    read_margin,
)


@pytest.mark.parametrize(
    ("argument", "name", "values"),
    [
        ("learning_rate=1e-4,3e-4", "learning_rate", (1e-4, 3e-4)),
        ("lr=3e-4, 1e-4", "learning_rate", (3e-4, 1e-4)),
        ("batch-size=8,4,2", "per_device_train_batch_size", (8, 4, 2)),
        ("learning_rate=auto,1e-3", "learning_rate", ("auto", 1e-3)),
        ("bf16=true,false", "precision", ("bf16", "fp32")),
        ("gradient_checkpointing=false,true", "activation_checkpointing", ("off", "full")),
        (
            "target_modules=all-linear,[q_proj,v_proj]",
            "target_modules",
            ("all-linear", ("q_proj", "v_proj")),
        ),
        ("num_train_epochs=1,2", "num_train_epochs", (1.0, 2.0)),
    ],
)
def test_values_are_read_as_the_catalogue_reads_them(
    argument: str, name: str, values: tuple[Any, ...]
) -> None:
    assert read_arms(argument) == Arms(name, values)


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("learning_rate=1e-4", "has one value"),
        ("learning_rate=", "names no values"),
        ("learning_rate=1e-4,,2e-4", "one of the values is empty"),
        ("learning_rate=1e-4,0.0001", "0.0001 twice"),
        ("learning_rate=1e-4,-1", "it takes auto, or a number > 0"),
        ("learning_rat=1e-4,2e-4", "Did you mean learning_rate?"),
        ("seed=1,2", "the seeds are what the arms share"),
        ("model=a,b", "changes which tokens are scored"),
        ("packing=true,false", "packed rows put more tokens into an update"),
        ("output_dir=a,b", "no weight update depends on it"),
    ],
)
def test_nonsense_is_refused(argument: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_arms(argument)
    assert told in str(refused.value)
    assert refused.value.exit_code == 2


def test_values_from_python() -> None:
    assert arms_of("lr", [1e-4, 3e-4]) == read_arms("learning_rate=1e-4,3e-4")
    with pytest.raises(ConfigError, match="it takes auto, or a number"):
        arms_of("learning_rate", [1e-4, "3e-4"])


def test_names_in_the_lists_are_the_catalogues() -> None:
    assert {*NOT_STUDIED, *MOVES_BEST_RATE} <= set(catalogue())
    assert not MOVES_BEST_RATE & set(NOT_STUDIED)


def test_an_adapters_setting_needs_an_adapter() -> None:
    config = resolve(values={"model": "m", "dataset": "d", "method": "full"})
    with pytest.raises(ConfigError, match="lora_r is of adapters"):
        check_method(Arms("lora_r", (8, 16)), config)
    check_method(Arms("learning_rate", (1e-4, 1e-3)), config)


@pytest.mark.parametrize(
    ("arms", "changes", "told"),
    [
        (Arms("max_length", (256, 512)), {"packing": True}, "cannot be studied with packing"),
        (Arms("num_train_epochs", (1.0, 3.0)), {"max_steps": 20}, "max_steps 20 would decide"),
    ],
)
def test_arms_that_would_not_differ_by_the_setting_alone_are_refused(
    arms: Arms, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        check_method(arms, resolve(values={"model": "m", "dataset": "d", **changes}))
    check_method(arms, resolve(values={"model": "m", "dataset": "d"}))


@pytest.mark.parametrize(("text", "share"), [("0.5%", 0.005), ("0.005", 0.005), ("2 %", 0.02)])
def test_margins(text: str, share: float) -> None:
    assert read_margin(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["0", "-1%", "100%", "small", "nan", ""])
def test_margins_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="the equivalence margin is"):
        read_margin(text)


def test_seeds_and_margin_from_python() -> None:
    assert (check_seeds(1), check_margin(0.01)) == (1, 0.01)
    for number in (0, 101):
        with pytest.raises(ConfigError, match="seeds is"):
            check_seeds(number)
    with pytest.raises(ConfigError, match="margin"):
        check_margin(0.0)


def test_a_file_is_no_arms() -> None:
    assert is_arms_argument("learning_rate=1,2")
    assert is_arms_argument("learning-rate=1,2")
    assert not is_arms_argument("config.yaml")
    assert not is_arms_argument("runs/a=b.yaml")
