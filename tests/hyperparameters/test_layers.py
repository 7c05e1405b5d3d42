from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import catalogue
from trimtab.hyperparameters.layers import Origin, ResolvedConfig, resolve

REQUIRED = "model: m\ndataset: d.jsonl\n"


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def written(file: Path, text: str, *options: tuple[str, str], **values: Any) -> ResolvedConfig:
    file.write_text(REQUIRED + text)
    return resolve(file=file, values=values, options=options)


def test_defaults_know_that_they_are(config_file: Path) -> None:
    found = written(config_file, "")
    assert found.origins["seed"] == Origin("default")
    assert not found.is_set("seed")
    assert found.config.seed == 42
    assert set(found.origins) == set(catalogue())
    assert found.overruled == ()


def test_each_value_remembers_its_layer(config_file: Path) -> None:
    found = written(config_file, "lr: 1e-4\n", ("packing", "true"), seed=7)
    assert found.origins["learning_rate"] == Origin("file", f"{config_file}:3")
    assert found.origins["seed"] == Origin("python")
    assert found.origins["packing"] == Origin("command line", "--packing")
    assert found.config.learning_rate == 1e-4
    assert found.config.seed == 7
    assert found.config.packing is True
    assert found.is_set("learning_rate")


def test_later_layers_win_and_say_what_lost(config_file: Path) -> None:
    found = written(config_file, "seed: 1\n", ("seed", "3"), seed=2)
    assert found.config.seed == 3
    assert found.origins["seed"] == Origin("command line", "--seed")
    lost = [(one.name, one.value, one.origin.layer, one.by) for one in found.overruled]
    assert lost == [("seed", 1, "file", "seed"), ("seed", 2, "python", "seed")]


def test_an_alias_in_a_later_layer_wins_over_the_name(config_file: Path) -> None:
    found = written(
        config_file, "precision: fp32\nlearning_rate: 1e-4\n", ("lr", "2e-4"), bf16=True
    )
    assert found.config.precision == "bf16"
    assert found.config.learning_rate == 2e-4


def test_the_same_value_again_overrules_nothing(config_file: Path) -> None:
    found = written(config_file, "seed: 1\n", ("seed", "1"))
    assert found.overruled == ()
    assert found.origins["seed"].layer == "command line"


def test_epochs_win_over_steps_in_one_file(config_file: Path) -> None:
    found = written(config_file, "max_steps: 10\nnum_train_epochs: 2\n")
    assert found.config.num_train_epochs == 2.0
    assert found.config.max_steps == -1
    assert not found.is_set("max_steps")
    (lost,) = found.overruled
    assert (lost.name, lost.value, lost.by) == ("max_steps", 10, "num_train_epochs")
    assert lost.origin == Origin("file", f"{config_file}:3")
    assert "epochs win" in lost.because


@pytest.mark.parametrize(
    ("file_text", "options", "epochs", "steps", "lost_names"),
    [
        ("num_train_epochs: 3", [("max_steps", "10")], "auto", 10, ["num_train_epochs"]),
        ("max_steps: 10", [("num_train_epochs", "3")], 3.0, -1, ["max_steps"]),
        ("num_train_epochs: 3", [("max_steps", "-1")], 3.0, -1, []),
        ("max_steps: 10", [("max_steps", "-1")], "auto", -1, ["max_steps"]),
        ("max_steps: 10", [("num_train_epochs", "auto")], "auto", 10, []),
        ("num_train_epochs: auto\nmax_steps: 10", [], "auto", 10, []),
        ("num_train_epochs: 3\nmax_steps: -1", [], 3.0, -1, []),
        (
            "num_train_epochs: 3\nmax_steps: 10",
            [("max_steps", "5")],
            "auto",
            5,
            ["max_steps", "num_train_epochs"],
        ),
        (
            "max_steps: 10",
            [("num_train_epochs", "3"), ("max_steps", "5")],
            3.0,
            -1,
            ["max_steps", "max_steps"],
        ),
    ],
)
def test_epochs_and_steps_across_layers(
    config_file: Path,
    *,
    file_text: str,
    options: list[tuple[str, str]],
    epochs: object,
    steps: int,
    lost_names: list[str],
) -> None:
    found = written(config_file, f"{file_text}\n", *options)
    assert found.config.num_train_epochs == epochs
    assert found.config.max_steps == steps
    assert [one.name for one in found.overruled] == lost_names


def test_both_kinds_of_warmup_in_one_layer_are_an_error(config_file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        written(config_file, "warmup_steps: 5\nseed: 1\nwarmup_ratio: 0.1\n")
    message = str(caught.value)
    assert f"{config_file}:3: warmup_steps and warmup_ratio ({config_file}:5)" in message


@pytest.mark.parametrize("text", ["warmup_steps: auto\nwarmup_ratio: 0.1\n"])
def test_an_unset_kind_of_warmup_is_no_rival(config_file: Path, text: str) -> None:
    assert written(config_file, text).config.warmup_ratio == 0.1


@pytest.mark.parametrize(
    ("file_text", "option", "steps", "ratio", "lost"),
    [
        ("warmup_steps: 5", ("warmup_ratio", "0.1"), "auto", 0.1, ("warmup_steps", 5)),
        ("warmup_ratio: 0.1", ("warmup_steps", "5"), 5, None, ("warmup_ratio", 0.1)),
        ("warmup_ratio: 0.1", ("warmup_steps", "0"), 0, None, ("warmup_ratio", 0.1)),
    ],
)
def test_the_later_warmup_wins(
    config_file: Path,
    *,
    file_text: str,
    option: tuple[str, str],
    steps: object,
    ratio: float | None,
    lost: tuple[str, float],
) -> None:
    found = written(config_file, f"{file_text}\n", option)
    assert found.config.warmup_steps == steps
    assert found.config.warmup_ratio == ratio
    assert [(one.name, one.value) for one in found.overruled] == [lost]
    assert found.overruled[0].by == option[0]


def test_python_takes_paths_and_tuples(tmp_path: Path) -> None:
    found = resolve(
        values={"model": tmp_path, "dataset": tmp_path / "d.jsonl", "target_modules": ("q_proj",)}
    )
    assert found.config.model == str(tmp_path)
    assert found.config.target_modules == ("q_proj",)


def test_what_is_required_may_come_from_any_layer(config_file: Path) -> None:
    config_file.write_text("base_model: m\n")
    found = resolve(file=config_file, options=[("dataset", "d.jsonl")])
    assert (found.config.model, found.config.dataset) == ("m", "d.jsonl")


def test_what_is_missing_is_named_with_what_to_write(config_file: Path) -> None:
    config_file.write_text("# nothing yet\n")
    with pytest.raises(ConfigError) as caught:
        resolve(file=config_file)
    assert f"{config_file}: model is not set; it takes a folder" in str(caught.value)
    assert "`dataset: …` in the file, or --dataset" in str(caught.value)


def test_a_value_that_a_later_layer_replaces_is_checked_too(config_file: Path) -> None:
    with pytest.raises(ConfigError, match="learning_rate is -1"):
        written(config_file, "learning_rate: -1\n", ("learning_rate", "1e-4"))


def test_the_yaml_of_a_resolved_configuration_reads_back(config_file: Path) -> None:
    found = written(
        config_file,
        "lr: 1e-4\nmax_steps: 10\nnum_train_epochs: 2\neval_strategy: no\nmemory_limit: 6GiB\n"
        "dataset_columns: {prompt: 'the # question', completion: \"1\"}\nlora_target: q,v\n",
        ("max-steps", "12"),
        ("lr_scheduler_kwargs", "{min_lr: 1e-6, note: no}"),
        seed=9,
        output_dir="a # b: c",
    )
    text = found.to_yaml()
    assert "seed: 9  # python\n" in text
    assert "max_steps: 12  # command line, --max-steps\n" in text
    assert f"# overruled: num_train_epochs: 2.0  # file, {config_file}:5" in text
    config_file.write_text(text)
    again = resolve(file=config_file)
    assert again.config == found.config
    assert again.overruled == ()
    for name in catalogue():
        assert again.is_set(name) == found.is_set(name), name


PATHS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)


@given(
    st.fixed_dictionaries(
        {"model": PATHS, "dataset": PATHS},
        optional={
            "learning_rate": st.floats(1e-9, 1e3) | st.just("auto"),
            "max_steps": st.integers(1, 10**6),
            "num_train_epochs": st.floats(0.01, 100),
            "output_dir": PATHS,
            "pad_token": st.text(min_size=1),
            "eval_dataset": PATHS | st.floats(0.01, 0.99),
            "dataset_columns": st.dictionaries(st.text(), st.text(min_size=1), max_size=2),
            "target_modules": st.lists(st.text(min_size=1), min_size=1, max_size=3),
        },
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_configuration_reads_back(config_file: Path, values: dict[str, Any]) -> None:
    found = resolve(values=values)
    config_file.write_bytes(found.to_yaml().encode())
    assert resolve(file=config_file).config == found.config


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("learning_rate", "1,5e-4", "write 0.00015 without"),
        ("max_steps", "1,000", "write 1000 without"),
        ("max_steps", "1_000", "write 1000 without"),
        ("lr_scheduler_type", "cosin", "Did you mean cosine?"),
        ("optim", "adamww", "Did you mean adamw?"),
        ("dataset_columns", {"prompt:question": None}, "Put a space behind each colon"),
    ],
)
def test_a_value_that_is_nearly_right_is_answered_with_the_right_one(
    name: str, value: Any, hint: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(hint)):
        resolve(values={"model": "m", "dataset": "d", name: value})
