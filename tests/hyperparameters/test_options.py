from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import catalogue
from trimtab.hyperparameters.layers import resolve
from trimtab.hyperparameters.options import parse_options, split_options

REQUIRED = "--model m --dataset d"


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        ("--learning-rate 2e-4", [("learning_rate", "2e-4")]),
        ("--learning_rate=2e-4", [("learning_rate", "2e-4")]),
        ("--lr 2e-4", [("lr", "2e-4")]),
        ("--max-steps -1", [("max_steps", "-1")]),
        ("--max-steps=10 --seed 3", [("max_steps", "10"), ("seed", "3")]),
        ("--packing", [("packing", "true")]),
        ("--packing --no-packing", [("packing", "true"), ("packing", "false")]),
        ("--packing false --seed 1", [("packing", "false"), ("seed", "1")]),
        ("--packing=false", [("packing", "false")]),
        ("--no_bf16", [("bf16", "false")]),
        ("--dataloader-num-workers 4", [("dataloader_num_workers", "4")]),
        ("--bf16 auto", [("bf16", "auto")]),
        ("--gradient-checkpointing --seed 1", [("gradient_checkpointing", "true"), ("seed", "1")]),
        ("--gradient-checkpointing off", [("gradient_checkpointing", "off")]),
        ("--activation-checkpointing 2", [("activation_checkpointing", "2")]),
        ("--activation-checkpointing full", [("activation_checkpointing", "full")]),
        ("--model=", [("model", "")]),
        (
            "--dataset-columns '{prompt: q, completion: a}'",
            [("dataset_columns", "{prompt: q, completion: a}")],
        ),
    ],
)
def test_options_as_pairs(line: str, pairs: list[tuple[str, str]]) -> None:
    assert parse_options(shlex.split(line)) == pairs


def test_positionals_are_told_apart() -> None:
    arguments = shlex.split("config.yaml --learning-rate 2e-4 --packing rest")
    assert split_options(arguments) == (
        ["config.yaml", "rest"],
        [("learning_rate", "2e-4"), ("packing", "true")],
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--learning-rte 2e-4", "no option --learning-rte. Did you mean --learning-rate?"),
        ("--no-max-steps", "--no-max-steps. Did you mean --max-steps"),
        ("--reasoning-effort high", "trimtab explain"),
        ("--learning-rate", "--learning-rate has no value. It takes auto, or a number > 0"),
        ("--learning-rate --packing", "--learning-rate has no value"),
        ("--report-to", "--report-to has no value"),
        ("--no-dataloader-num-workers", "no option --no-dataloader-num-workers"),
        ("--packing yes", "--packing yes: it takes true or false. --packing alone turns it on"),
        ("stray", "'stray' stands alone"),
        ("--packing maybe", "'maybe' stands alone"),
        ("--packing 2", "'2' stands alone"),
        ("--activation-checkpointing some", "'some' stands alone"),
        ("-x", "'-x' stands alone"),
        ("--", "'--' stands alone"),
        ("--=3", "no option --."),
    ],
)
def test_wrong_options_are_named(line: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options(shlex.split(line))
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


VALUES: list[tuple[str, str, Any]] = [
    ("--learning-rate 2e-4", "learning_rate", 2e-4),
    ("--learning-rate auto", "learning_rate", "auto"),
    ("--num-train-epochs 2", "num_train_epochs", 2.0),
    ("--warmup-steps 0.05", "warmup_steps", 0.05),
    ("--warmup-steps 5", "warmup_steps", 5),
    ("--eval-strategy no", "eval_strategy", "no"),
    ("--eval-dataset 0.1", "eval_dataset", 0.1),
    ("--eval-dataset none", "eval_dataset", "none"),
    ("--eval-dataset '*.jsonl'", "eval_dataset", "*.jsonl"),
    ("--eval-dataset 'a: b'", "eval_dataset", "a: b"),
    ("--memory-limit 6GiB", "memory_limit", "6GiB"),
    ("--memory-limit 6000000000", "memory_limit", 6_000_000_000),
    ("--target-modules q_proj,v_proj", "target_modules", ("q_proj", "v_proj")),
    ("--target-modules '[q_proj, v_proj]'", "target_modules", ("q_proj", "v_proj")),
    ("--target-modules q_proj", "target_modules", ("q_proj",)),
    ("--target-modules '[all-linear]'", "target_modules", "all-linear"),
    ("--target-modules all-linear", "target_modules", "all-linear"),
    ("--output-dir 2024", "output_dir", "2024"),
    ("--output-dir true", "output_dir", "true"),
    ("--pad-token '<|pad|>'", "pad_token", "<|pad|>"),
    ("--pad-token '*'", "pad_token", "*"),
    ("--lr-scheduler-kwargs '{min_lr: 1e-5}'", "lr_scheduler_kwargs", {"min_lr": 1e-5}),
    ("--dataset-columns '{prompt: q}'", "dataset_columns", {"prompt": "q"}),
    ("--pad-to-multiple-of null", "pad_to_multiple_of", None),
    ("--packing", "packing", True),
    ("--packing --no-packing", "packing", False),
    ("--seed 1 --seed 2", "seed", 2),
    ("--gradient-checkpointing=2", "activation_checkpointing", 2),
    ("--activation-checkpointing 2", "activation_checkpointing", 2),
    ("--activation-checkpointing off", "activation_checkpointing", "off"),
    ("--activation-checkpointing --seed 1", "activation_checkpointing", "full"),
    ("--no-gradient-checkpointing", "activation_checkpointing", "off"),
    ("--fp16", "precision", "fp16"),
    ("--dataloader-num-workers 0 --seed 2", "seed", 2),
]


@pytest.mark.parametrize(("line", "name", "value"), VALUES)
def test_values_of_options(line: str, name: str, value: Any) -> None:
    found = resolve(options=parse_options(shlex.split(f"{REQUIRED} {line}")))
    assert dict(found.config)[name] == value
    assert type(dict(found.config)[name]) is type(value)
    origin = found.origins[name]
    assert origin.layer == "command line"
    assert origin.where is not None
    assert origin.where.startswith("--")


def test_kebab_names_are_taken_in_pairs_too() -> None:
    found = resolve(options=[("--model", "m"), ("dataset", "d"), ("max-steps", "3")])
    assert found.config.max_steps == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--learning-rate fast", "--learning-rate: learning_rate is 'fast'"),
        ("--gradient-checkpointing 2.5", "activation_checkpointing) is 2.5"),
        ("--gradient-checkpointing -1", "activation_checkpointing) is -1"),
        ("--max-steps 1.5", "--max-steps: max_steps is 1.5"),
        ("--lr nan", "--lr: lr (learning_rate) is 'nan'"),
        ("--seed '[1'", "--seed: this is no valid YAML"),
        ("--warmup-steps 5 --warmup-ratio 0.1", "--warmup-steps: warmup_steps and warmup_ratio"),
        ("--model ''", "--model: model is ''"),
        ("--dataloader-num-workers 4", "--dataloader-num-workers: dataloader_num_workers"),
    ],
)
def test_wrong_values_name_their_option(line: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(options=parse_options(shlex.split(f"--dataset d --model m {line}")))
    assert words in str(caught.value)


@given(
    st.lists(
        st.text(max_size=12)
        | st.sampled_from([f"--{name.replace('_', '-')}" for name in catalogue()])
        | st.builds("--{}={}".format, st.sampled_from(list(catalogue())), st.text(max_size=12)),
        max_size=6,
    )
)
def test_any_arguments_are_taken_or_refused(arguments: list[str]) -> None:
    try:
        resolve(options=parse_options(arguments))
    except ConfigError as error:
        assert error.exit_code == 2
