from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import aliases, catalogue
from trimtab.hyperparameters.layers import resolve
from trimtab.hyperparameters.translations import FOREIGN
from trimtab.hyperparameters.writing import yaml_value

FIRST_LINES = "model: m\ndataset: d.jsonl\n"

BAD_LINES: list[tuple[str, str]] = [
    # Unknown names
    ("learning_rte: 1e-4", "'learning_rte' is no hyperparameter. Did you mean learning_rate?"),
    ("learning-rate: 1e-4", "Did you mean learning_rate?"),
    ("gradient_acumulation_steps: 2", "Did you mean gradient_accumulation_steps?"),
    ("reasoning_effort: high", "'reasoning_effort' is no hyperparameter. `trimtab explain`"),
    ("3: 4", "'3' is no hyperparameter"),
    # Numbers that are none
    ("learning_rate: .nan", "learning_rate is nan; it takes auto, or a number > 0. The value must"),
    ("learning_rate: .inf", "learning_rate is inf"),
    ("weight_decay: -.inf", "weight_decay is -inf"),
    ("adam_epsilon: nan", "adam_epsilon is 'nan'; it takes a number > 0."),
    ("lr_scheduler_kwargs: {min_lr: .nan}", "finite"),
    # Wrong types
    ("learning_rate: '1e-4'", "It is a text here: write 0.0001 without quotes"),
    ("max_steps: 1_000", "It is a text here: write 1000 without quotes"),
    ("max_steps: 1,000", "It is a text here: write 1000 without quotes"),
    ("max_steps: 10.0", "max_steps is 10.0; it takes -1, or a whole number > 0."),
    ("seed: true", "seed is true"),
    ("seed:", "seed is empty (null)"),
    ("seed: [1]", "seed is [1]"),
    ("packing: yes", "packing is 'yes'; it takes true or false. YAML 1.2 reads yes"),
    ("packing: 1", "packing is 1; it takes true or false"),
    ("model_name_or_path: 3", "model_name_or_path and model"),
    ("output_dir: 3", "output_dir is 3; it takes auto, or a folder's path"),
    ("output_dir: ''", "output_dir is ''"),
    ("dataset_split: null", "dataset_split is empty (null)"),
    ("dataset_columns: prompt", "dataset_columns is 'prompt'; it takes a mapping"),
    ("dataset_columns: {prompt: 1}", "dataset_columns is {'prompt': 1}"),
    ("lr_scheduler_kwargs: [1]", "lr_scheduler_kwargs is [1]"),
    ("lr_scheduler_kwargs: {a: {b: 1}}", "lr_scheduler_kwargs is"),
    ("target_modules: []", "target_modules is []; it takes all-linear, or a list of names"),
    ("target_modules: [1]", "target_modules is [1]"),
    ("target_modules: true", "target_modules is true"),
    # Wrong units
    ("max_length: 512 tokens", "Write the number alone; its unit is tokens."),
    ("memory_limit: 6 bananas", "memory_limit is '6 bananas'; it takes auto, a whole number > 0"),
    ("memory_limit: 6G", "a size such as 6GiB"),
    ("memory_limit: 0GiB", "memory_limit is '0GiB'"),
    ("memory_limit: -5", "memory_limit is -5"),
    ("warmup_steps: 10%", "warmup_steps is '10%'"),
    ("eval_steps: 2 epochs", "eval_steps is '2 epochs'"),
    # Out of the domain
    ("learning_rate: 0", "learning_rate is 0"),
    ("learning_rate: -1e-4", "learning_rate is -0.0001"),
    ("lr: -1", "lr (learning_rate) is -1"),
    ("weight_decay: -0.1", "weight_decay is -0.1; it takes a number ≥ 0."),
    ("adam_beta1: 1.0", "adam_beta1 is 1.0; it takes a number ≥ 0 and < 1."),
    ("adam_beta2: 2", "adam_beta2 is 2"),
    ("max_grad_norm: -1", "max_grad_norm is -1"),
    ("lora_r: 0", "lora_r is 0"),
    ("lora_dropout: 1", "lora_dropout is 1"),
    ("max_steps: 0", "max_steps is 0"),
    ("max_steps: -2", "max_steps is -2"),
    ("num_train_epochs: 0", "num_train_epochs is 0"),
    ("per_device_train_batch_size: 0", "per_device_train_batch_size is 0"),
    ("gradient_accumulation_steps: 1.5", "gradient_accumulation_steps is 1.5"),
    ("global_batch_size: many", "global_batch_size is 'many'"),
    ("eval_dataset: 1.5", "eval_dataset is 1.5"),
    ("warmup_ratio: 1", "warmup_ratio is 1"),
    ("warmup_steps: 1.5", "warmup_steps is 1.5"),
    ("seed: 4294967296", "seed is 4294967296"),
    (f"seed: {'9' * 400}", "seed is inf"),
    ("pad_to_multiple_of: 0", "pad_to_multiple_of is 0"),
    ("save_total_limit: 0", "save_total_limit is 0"),
    ("device: mps", "device is 'mps'; it takes auto, cpu, cuda or cuda:N."),
    ("device: cuda:x", "device is 'cuda:x'"),
    # Choices
    ("method: dora", "method is 'dora'; it takes lora or full."),
    ("precision: fp8", "precision is 'fp8'; it takes auto, bf16, fp16 or fp32."),
    ("lr_scheduler_type: exponential", "lr_scheduler_type is 'exponential'"),
    ("padding: both", "padding is 'both'; it takes none, longest or max_length."),
    ("padding_side: centre", "padding_side is 'centre'"),
    ("truncation_mode: keep_end", "truncation_mode is 'keep_end'"),
    ("eval_strategy: sometimes", "eval_strategy is 'sometimes'; it takes steps, epoch or no."),
    ("on_bad_row: ignore", "on_bad_row is 'ignore'"),
    ("activation_checkpointing: 0", "activation_checkpointing is 0"),
    ("dataset_format: csv", "dataset_format is 'csv'"),
    ("optim: Adam", "optim is 'Adam'; it takes adamw, adam"),
    # One thing twice
    ("base_model: other", "base_model and model"),
    ("model: other", "model is set twice, here and on line 1"),
]


def refusal(folder: Path, text: str) -> ConfigError:
    file = folder / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve(file=file)
    return caught.value


@pytest.mark.parametrize(("line", "words"), BAD_LINES)
def test_a_bad_line_is_named_with_file_and_line(tmp_path: Path, line: str, words: str) -> None:
    error = refusal(tmp_path, f"{FIRST_LINES}{line}\n")
    assert error.exit_code == 2
    assert error.where == f"{tmp_path / 'config.yaml'}:3"
    assert words in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < len(str(error.where)) + 400


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    error = refusal(
        tmp_path,
        "modle: m\nlearning_rate: -1\nseed: x\nlr: 1\noptim: paged_adamw\nmethod: qlora\n",
    )
    heading, *lines = str(error).splitlines()
    assert heading == "the configuration has 7 problems:"
    places = [line.split(": ")[0].rpartition(":")[2] for line in lines[:6]]
    assert places == ["1", "2", "3", "4", "5", "6"]
    assert "dataset is not set" in lines[6]
    assert "model is not set" not in str(error)


def test_problems_of_all_layers_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"{FIRST_LINES}seed: -1\n")
    with pytest.raises(ConfigError) as caught:
        resolve(file=file, values={"lora_r": 0}, options=[("max_steps", "0")])
    _, in_file, in_python, in_options = str(caught.value).splitlines()
    assert in_file.startswith(f"{file}:3: seed is -1")
    assert in_python.startswith("lora_r is 0")
    assert in_options.startswith("--max-steps: max_steps is 0")


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, float("nan"), b"bytes", {1}, "x" * 10_000, [[]] * 1000, 10**400]
)
def test_any_python_value_is_refused_shortly(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(values={"model": "m", "dataset": "d", "learning_rate": value})
    assert "learning_rate is" in str(caught.value)
    assert len(str(caught.value)) < 300


NAMES = st.sampled_from([*catalogue(), *aliases(), *FOREIGN, "learning_rte"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["auto", "none", "6GiB", "no", "1e-4", "q_proj,v_proj", "x"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_any_configuration_is_taken_or_refused_in_our_words(
    tmp_path: Path, values: dict[str, object]
) -> None:
    file = tmp_path / "config.yaml"
    lines = [f"{name}: {yaml_value(value)}\n" for name, value in values.items()]
    file.write_bytes("".join(lines).encode())
    try:
        resolve(file=file)
    except ConfigError as error:
        assert str(file) in str(error)
        assert "pydantic" not in str(error).lower()
        assert "Input should be" not in str(error)
