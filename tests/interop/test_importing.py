"""Configurations of other tools: found out, translated with their meaning, losses told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.cli.app import run
from trimtab.errors import ConfigError
from trimtab.interop.importing import DIALECTS, Imported, dialect_of, import_config

TRL = """
model_name_or_path: some/model
dataset_name: rows.jsonl
"""
PEFT = f"""{TRL}use_peft: true
lora_target_modules: all-linear
"""
AXOLOTL = """
base_model: some/model
datasets:
  - path: some/rows
    type: chat_template
"""
LLAMA_FACTORY = """
model_name_or_path: some/model
stage: sft
template: qwen
dataset: mine
"""
LLAMA_FACTORY_V1 = """
model: some/model
model_class: llm
train_dataset: rows.jsonl
"""
TRANSFORMERS = """
logging_dir: logs
"""
MINIMAL = {
    "trl": TRL,
    "axolotl": AXOLOTL,
    "llamafactory": LLAMA_FACTORY,
    "llamafactory-v1": LLAMA_FACTORY_V1,
}
ROWS = [("dataset", "rows.jsonl")]


def written(tmp_path: Path, text: str, name: str = "theirs.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def imported(tmp_path: Path, text: str, **arguments: Any) -> Imported:
    found = import_config(written(tmp_path, text), **arguments)
    assert found is not None
    return found


def values(tmp_path: Path, text: str, **arguments: Any) -> dict[str, Any]:
    """What the file set, by the catalogue's names."""
    resolved = imported(tmp_path, text, **arguments).resolved
    return {name: value for name, value in dict(resolved.config).items() if resolved.is_set(name)}


@pytest.mark.parametrize("name", MINIMAL)
def test_a_tool_is_known_by_its_keys(name: str, tmp_path: Path) -> None:
    found = dialect_of(written(tmp_path, MINIMAL[name]))
    assert found is DIALECTS[name]


@pytest.mark.parametrize(
    "text",
    ["model: m\ndataset: d\n", "model: m\ndataset: d\nval_set_size: 0.1\ncutoff_len: 5\n", ""],
)
def test_a_configuration_of_ours_is_not_translated(text: str, tmp_path: Path) -> None:
    assert import_config(written(tmp_path, text)) is None


def test_a_trainers_arguments_need_a_model_and_rows_beside_them(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        json.dumps({"dataloader_num_workers": 2, "learning_rate": 1e-5, "max_steps": 7}),
        "training_args.json",
    )
    found = import_config(file, options=[("model", "m"), *ROWS])
    assert found is not None
    assert found.dialect.name == "transformers"
    assert found.resolved.config.max_steps == 7
    with pytest.raises(ConfigError, match="model is not set"):
        import_config(file)


def test_marks_of_two_tools_are_asked_about_and_can_be_overridden(tmp_path: Path) -> None:
    both = "base_model: m\nstage: sft\ndatasets: [{path: d, type: chat_template}]\n"
    with pytest.raises(ConfigError, match="Axolotl and of LLaMA-Factory"):
        imported(tmp_path, both)
    found = imported(tmp_path, both, dialect="axolotl", allow_lossy=True)
    assert found.dialect.name == "axolotl"


def test_an_unknown_dialect_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such dialect.*axolotl, llamafactory"):
        imported(tmp_path, TRL, dialect="unsloth")
    assert import_config(written(tmp_path, TRL), dialect="trimtab") is None


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "a: 1\na: 2\n", "\x00"])
def test_a_broken_file_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        imported(tmp_path, text)


@pytest.mark.parametrize(
    ("base", "lines", "expected"),
    [
        (TRL, "max_steps: 10\nnum_train_epochs: 3", {"max_steps": 10, "num_train_epochs": "auto"}),
        (TRL, "max_steps: -1\nnum_train_epochs: 3", {"max_steps": -1, "num_train_epochs": 3}),
        (TRL, "warmup_steps: 0\nwarmup_ratio: 0.1", {"warmup_steps": "auto", "warmup_ratio": 0.1}),
        (TRL, "warmup_steps: 5\nwarmup_ratio: 0.1", {"warmup_steps": 5, "warmup_ratio": None}),
        (TRL, "warmup_steps: 0.03", {"warmup_steps": 0.03}),
        (
            TRL,
            "per_device_train_batch_size: 4",
            {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1},
        ),
        (TRL, "learning_rate: '2e-5'", {"learning_rate": 2e-5}),
        (TRL, "bf16: yes", {"precision": "bf16"}),
        (TRL, "bf16: false\nfp16: true", {"precision": "fp16"}),
        (TRL, "bf16: false", {"precision": "fp32"}),
        (TRL, "fp16: false", {"precision": "bf16"}),
        (TRL, "fp16: false\nbf16: false", {"precision": "fp32"}),
        (TRL, "no_cuda: true", {"device": "cpu"}),
        (TRL, "no_cuda: false", {"device": "auto"}),
        (TRL, "test_split_size: 0.2", {"eval_dataset": 0.2}),
        (AXOLOTL, "gradient_checkpointing: unsloth", {"activation_checkpointing": "full"}),
        (TRL, "", {"method": "full", "assistant_only_loss": False, "precision": "auto"}),
        (PEFT, "", {"method": "lora", "lora_dropout": 0.05, "lora_r": "auto"}),
        (PEFT, "lora_r: 8", {"lora_r": 8, "lora_alpha": 32}),
        (
            f"{TRL}use_peft: true\n",
            "lora_target_modules: [all-linear]",
            {"target_modules": "all-linear"},
        ),
        (
            PEFT,
            "use_rslora: true\nlora_r: 16\nlora_alpha: 8",
            {"lora_r": 16, "lora_alpha": 32.0},
        ),
        (TRL, "packing: true", {"packing": True}),
        (TRL, "packing: true\npacking_strategy: bfd", {"packing": True}),
        (TRL, "gradient_checkpointing: true", {"activation_checkpointing": "full"}),
        (TRL, "optim: paged_adamw_8bit", {"optim": "adamw_8bit"}),
        (TRL, "optim: paged_adamw_32bit", {"optim": "adamw"}),
        (TRL, "adam_beta2: 0.99\noptim: lion_32bit", {"optim": "lion"}),
        (TRL, "eval_strategy: no", {"eval_strategy": "no"}),
        (TRL, "eval_strategy: steps", {"eval_dataset": "rows.jsonl"}),
        (
            TRL,
            "eval_strategy: steps\ndataset_test_split: dev",
            {"eval_dataset": "rows.jsonl"},
        ),
        (TRL, "save_strategy: epoch\nsave_steps: 5", {"save_steps": "auto"}),
        (AXOLOTL, "", {"dataset": "some/rows", "dataset_format": "messages", "method": "full"}),
        (AXOLOTL, "", {"truncation_mode": "drop", "lr_scheduler_type": "cosine"}),
        (AXOLOTL, "train_on_inputs: false", {"assistant_only_loss": True}),
        (AXOLOTL, "train_on_inputs: true", {"assistant_only_loss": False}),
        (AXOLOTL, "sample_packing: true\nsequence_len: 64", {"packing": True, "max_length": 64}),
        (AXOLOTL, "num_epochs: 4\nevals_per_epoch: 2", {"eval_steps": 0.125}),
        (AXOLOTL, "evals_per_epoch: 0", {"eval_strategy": "no"}),
        (AXOLOTL, "val_set_size: 0", {"eval_dataset": "none"}),
        (AXOLOTL, "val_set_size: 0.1", {"eval_dataset": 0.1}),
        (AXOLOTL, "adapter: lora\nlora_target_linear: true", {"target_modules": "all-linear"}),
        (
            AXOLOTL,
            "adapter: lora\nlora_target_modules: [q_proj]",
            {"method": "lora", "target_modules": ("q_proj",)},
        ),
        (
            AXOLOTL,
            "lr_scheduler: cosine\ncosine_min_lr_ratio: 0.2",
            {
                "lr_scheduler_type": "cosine_with_min_lr",
                "lr_scheduler_kwargs": {"min_lr_rate": 0.2},
            },
        ),
        (AXOLOTL, "special_tokens: {pad_token: <pad>}", {"pad_token": "<pad>"}),
        (AXOLOTL, "excess_length_strategy: truncate", {"truncation_mode": "keep_start"}),
        (AXOLOTL, "bf16: auto", {"precision": "auto"}),
        (AXOLOTL, "fp16: false", {"precision": "auto"}),
        (AXOLOTL, "bf16: false\nfp16: false", {"precision": "fp32"}),
        (LLAMA_FACTORY, "fp16: false", {"precision": "fp32"}),
        (LLAMA_FACTORY, "", {"method": "lora", "chat_template": "model"}),
        (LLAMA_FACTORY, "lora_rank: 4", {"lora_r": 4, "lora_alpha": 8}),
        (LLAMA_FACTORY, "lora_target: all", {"target_modules": "all-linear"}),
        (LLAMA_FACTORY, "lora_target: q_proj,v_proj", {"target_modules": ("q_proj", "v_proj")}),
        (LLAMA_FACTORY, "neat_packing: true\npacking: true", {"packing": True}),
        (LLAMA_FACTORY, "neat_packing: true\ncutoff_len: 65", {"packing": True, "max_length": 64}),
        (LLAMA_FACTORY, "train_on_prompt: true", {"completion_only_loss": False}),
        (LLAMA_FACTORY, "cutoff_len: 99\nval_size: 0.2", {"max_length": 99, "eval_dataset": 0.2}),
        (
            LLAMA_FACTORY_V1,
            "peft_config: {name: lora, r: 4, target_modules: all}",
            {"method": "lora", "lora_r": 4, "target_modules": "all-linear"},
        ),
    ],
)
def test_a_key_keeps_its_meaning(
    base: str, lines: str, expected: dict[str, Any], tmp_path: Path
) -> None:
    options = [] if "dataset" in expected else ROWS
    config = imported(tmp_path, base + lines, options=options).resolved.config
    assert {name: dict(config)[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("base", "line"),
    [
        (TRL, "load_in_4bit: true"),
        (TRL, "use_peft: true"),
        (TRL, "neftune_noise_alpha: 5"),
        (TRL, "packing: true\npacking_strategy: wrapped"),
        (TRL, "loss_type: dft"),
        (TRL, "optim: galore_adamw"),
        (TRL, "optim: adafactor"),
        (TRL, "adafactor: true"),
        (TRL, "optim: lion_32bit"),
        (AXOLOTL, "optimizer: paged_lion_32bit"),
        (TRL, "learning_rate: fast"),
        (TRL, "no_such_key_anywhere: 1"),
        (TRL, "datasets: [{path: a}, {path: b}]"),
        (AXOLOTL, "adapter: qlora"),
        (AXOLOTL, "adapter: lora\nlora_target_modules: 'layers\\..*q_proj'"),
        (AXOLOTL, "special_tokens: {eos_token: <|im_end|>}"),
        (AXOLOTL, "optimizer: adamw_torch_8bit"),
        (AXOLOTL, "chat_template: chatml"),
        (AXOLOTL, "plugins: [some.DiffusionPlugin]"),
        (LLAMA_FACTORY, "packing: true"),
        (LLAMA_FACTORY, "max_samples: 100"),
        (LLAMA_FACTORY, "pure_bf16: true"),
        (LLAMA_FACTORY, "enable_thinking: false"),
        (LLAMA_FACTORY, "mix_strategy: interleave_under"),
        (TRL, "test_split_size: 100"),
        (TRL, "eval_strategy: steps\ndataset_test_split: test_sft"),
        (TRL, "eos_token: <|im_end|>"),
        (TRL, "model_init_kwargs: {dtype: bfloat16, num_labels: 3}"),
        (LLAMA_FACTORY, "use_galore: true"),
        (LLAMA_FACTORY_V1, "quant_config: {name: bnb}"),
    ],
)
def test_a_key_that_changes_the_result_is_refused_unless_the_loss_is_allowed(
    base: str, line: str, tmp_path: Path
) -> None:
    options = ROWS if base is LLAMA_FACTORY else []
    with pytest.raises(ConfigError, match=r"cannot be carried.*--allow-lossy"):
        imported(tmp_path, base + line, options=options)
    found = imported(tmp_path, base + line, options=ROWS, allow_lossy=True)
    lost = [one.name for one in found.not_carried if one.changes_result]
    assert line.rpartition("\n")[2].partition(":")[0] in lost


@pytest.mark.parametrize(
    ("base", "line"),
    [
        (TRL, "save_steps: .inf"),
        (PEFT, "use_rslora: true\nlora_r: -1"),
        (PEFT, "use_rslora: true\nlora_r: .nan"),
        (AXOLOTL, "excess_length_strategy: [drop]"),
        (AXOLOTL, "test_datasets: [{split: test}]"),
        (AXOLOTL, "test_datasets: [{path: [a]}]"),
        (LLAMA_FACTORY, "disable_gradient_checkpointing: maybe"),
        (LLAMA_FACTORY, "neat_packing: true\ncutoff_len: .inf"),
    ],
)
def test_a_value_of_no_known_kind_is_a_loss(base: str, line: str, tmp_path: Path) -> None:
    found = imported(tmp_path, base + line, options=ROWS, allow_lossy=True)
    keys = {key.partition(":")[0] for key in line.splitlines()}
    assert keys & {one.name for one in found.not_carried}


@pytest.mark.parametrize(
    "entry",
    [
        "type: [a]",
        "type: {field_output: [a], format: [b]}",
        "type: chat_template, roles: [a]",
        "type: chat_template, roles: {user: 1}",
        "type: chat_template, roles_to_train: 3",
        "type: chat_template, message_property_mappings: [a]",
        "type: chat_template, name: [a, b]",
    ],
)
def test_axolotls_rows_of_no_known_kind_are_a_loss(entry: str, tmp_path: Path) -> None:
    text = f"base_model: m\ndatasets: [{{path: some/rows, {entry}}}]\n"
    with pytest.raises(ConfigError, match=r"datasets is .* cannot be carried"):
        imported(tmp_path, text)


def test_what_is_allowed_to_be_lost_leaves_the_nearest_there_is(tmp_path: Path) -> None:
    found = values(
        tmp_path, AXOLOTL + "adapter: qlora\noptimizer: adamw_torch_8bit", allow_lossy=True
    )
    assert (found["method"], found["optim"]) == ("lora", "adamw_8bit")


def test_an_option_that_settles_a_loss_is_enough(tmp_path: Path) -> None:
    text = LLAMA_FACTORY
    with pytest.raises(ConfigError, match="give the rows by --dataset"):
        imported(tmp_path, text)
    assert (
        values(tmp_path, text, options=[("dataset_name", "mine.jsonl")])["dataset"] == "mine.jsonl"
    )
    peft = [("target_modules", "all-linear")]
    assert values(tmp_path, TRL + "use_peft: true", options=peft)["method"] == "lora"
    adafactor = TRL + "optim: adafactor"
    assert values(tmp_path, adafactor, options=[("optim", "adafactor")])["optim"] == "adafactor"
    quantised = AXOLOTL + "load_in_8bit: true\nadapter: lora"
    assert values(tmp_path, quantised, options=[("method", "lora")])["method"] == "lora"


@pytest.mark.parametrize(
    ("base", "line"),
    [
        (TRL, "deepspeed: ds.json"),
        (TRL, "fsdp: [full_shard]"),
        (TRL, "dataloader_num_workers: 4"),
        (TRL, "attn_implementation: flash_attention_2"),
        (TRL, "lora_r: 8"),
        (TRL, "logging_steps: 0.05"),
        (TRL, "save_total_limit: 0"),
        (TRL, "save_total_limit: -1"),
        (TRL, "per_device_eval_batch_size: 0"),
        (TRL, "gradient_checkpointing: sometimes"),
        (TRL, "model_init_kwargs: {dtype: bfloat16, attn_implementation: sdpa}"),
        (TRL, 'model_init_kwargs: \'{"torch_dtype": "bfloat16"}\''),
        (TRL, "streaming: true"),
        (AXOLOTL, "save_total_limit: 0"),
        (AXOLOTL, "wandb_project: mine"),
        (AXOLOTL, "liger_rope: true"),
        (AXOLOTL, "plugins: [axolotl.integrations.liger.LigerPlugin]"),
        (LLAMA_FACTORY, "preprocessing_num_workers: 4"),
    ],
)
def test_a_key_without_effect_on_the_result_is_listed_and_not_refused(
    base: str, line: str, tmp_path: Path
) -> None:
    found = imported(tmp_path, base + line, options=ROWS)
    names = {one.name: one.changes_result for one in found.not_carried}
    assert names[line.partition(":")[0]] is False


@pytest.mark.parametrize(
    ("base", "line"),
    [
        (TRL, "use_dora: false"),
        (TRL, "label_smoothing_factor: 0.0"),
        (TRL, "fp16:"),
        (LLAMA_FACTORY, "enable_thinking: true"),
        (LLAMA_FACTORY, "mix_strategy: concat"),
    ],
)
def test_a_key_that_asks_for_nothing_is_no_loss(base: str, line: str, tmp_path: Path) -> None:
    found = imported(tmp_path, base + line, options=ROWS, allow_lossy=True)
    assert line.partition(":")[0] not in [one.name for one in found.not_carried]


def test_the_tokenizers_own_tokens_ask_for_nothing(tmp_path: Path, tiny_llama_folder: Path) -> None:
    model = f"model_name_or_path: {tiny_llama_folder}\ndataset_name: d\n"
    assert imported(tmp_path, f"{model}eos_token: <|im_end|>\n").not_carried == ()
    with pytest.raises(ConfigError, match="own eos_token stay"):
        imported(tmp_path, f"{model}eos_token: </s>\n")
    tokens = "special_tokens: {eos_token: <|im_end|>, bos_token: <s>, pad_token: <unk>}\n"
    axolotl = AXOLOTL.replace("some/model", str(tiny_llama_folder)) + tokens
    found = imported(tmp_path, axolotl)
    assert found.not_carried == ()
    assert found.resolved.config.pad_token == "<unk>"


def test_tokens_of_a_model_that_is_not_here_are_not_known(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    text = f"{TRL}eos_token: <|im_end|>\n"
    with pytest.raises(ConfigError, match="some/model is not here to be asked"):
        imported(tmp_path, text)
    found = imported(tmp_path, text, options=[("model", str(tiny_llama_folder))])
    assert found.not_carried == ()


@pytest.mark.parametrize(
    ("base", "line"),
    [(AXOLOTL, "rl: dpo"), (AXOLOTL, "reward_model: true"), (LLAMA_FACTORY, "stage: dpo")],
)
def test_another_kind_of_training_is_refused_in_any_case(
    base: str, line: str, tmp_path: Path
) -> None:
    text = base.replace("stage: sft", line) if "stage" in line else base + line
    with pytest.raises(ConfigError, match="only supervised fine-tuning"):
        imported(tmp_path, text, options=ROWS, allow_lossy=True)


@pytest.mark.parametrize(
    ("base", "line", "options", "told"),
    [
        (TRL, "", {}, "joined without a chat template"),
        (TRL, "", {"chat_template": "none"}, None),
        (TRL, "", {"dataset_format": "messages"}, None),
        (TRL, "weight_decay: 0.1", {"dataset_format": "messages"}, "pulls embeddings to zero"),
        (TRL, "weight_decay: 0.0", {"dataset_format": "messages"}, None),
        (PEFT, "weight_decay: 0.1", {"dataset_format": "messages"}, None),
        (AXOLOTL, "weight_decay: 0.1", {}, "pulls embeddings to zero"),
        (AXOLOTL, "weight_decay: 0.1", {"weight_decay": "0.1"}, None),
        (LLAMA_FACTORY, "", {"dataset_format": "messages"}, "the prompt is cut there"),
        (LLAMA_FACTORY, "", {"truncation_mode": "drop"}, "joined by a line break"),
        (LLAMA_FACTORY, "", {"truncation_mode": "drop", "dataset_format": "messages"}, None),
    ],
)
def test_what_a_tool_does_otherwise_under_the_same_values_is_told_and_not_refused(
    base: str, line: str, options: dict[str, str], told: str | None, tmp_path: Path
) -> None:
    found = imported(tmp_path, base + line, options=[*ROWS, *options.items()])
    reasons = [difference.why for difference in found.differences]
    assert len(reasons) == (told is not None)
    assert told is None or told in reasons[0]


def test_defaults_of_the_tool_yield_to_a_global_batch_from_the_command_line(
    tmp_path: Path,
) -> None:
    options = [("global_batch_size", "32")]
    found = imported(tmp_path, f"{TRL}per_device_train_batch_size: 8", options=options)
    assert found.resolved.config.gradient_accumulation_steps == "auto"
    filled = imported(tmp_path, TRL, options=options, their_defaults=True)
    assert filled.resolved.config.per_device_train_batch_size == "auto"


def test_what_the_file_leaves_out_is_told_and_can_be_taken_from_its_tool(tmp_path: Path) -> None:
    found = imported(tmp_path, TRL)
    assert {one.name: one.theirs for one in found.left_out} == {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 3.0,
        "learning_rate": 2e-5,
        "warmup_steps": 0,
        "max_length": 1024,
        "eval_dataset": "none",
        "precision": "bf16",
    }
    filled = imported(tmp_path, TRL, their_defaults=True)
    assert filled.left_out == ()
    assert filled.resolved.config.learning_rate == 2e-5
    assert str(filled.resolved.origins["learning_rate"]) == "file, TRL's defaults"


@pytest.mark.parametrize(
    ("base", "lines", "expected"),
    [
        (TRL, "", {"eval_dataset": "none", "precision": "bf16"}),
        (TRL, "test_split_size: 0.2", {"eval_dataset": 0.2}),
        (TRL, "test_split_size: 100", {"eval_dataset": "auto"}),
        (TRL, "max_length: null", {"max_length": "auto", "eval_dataset": "none"}),
        (AXOLOTL, "", {"eval_dataset": "none", "max_length": 512}),
        (AXOLOTL, "val_set_size: 0.1", {"eval_dataset": 0.1}),
        (LLAMA_FACTORY, "", {"eval_dataset": "none"}),
        (LLAMA_FACTORY, "eval_dataset: one, other", {"eval_dataset": "auto"}),
        (LLAMA_FACTORY_V1, "", {"eval_dataset": "none"}),
        (TRANSFORMERS, "", {"eval_dataset": "none", "precision": "fp32"}),
        (TRANSFORMERS, "bf16: true", {"precision": "bf16"}),
        (TRANSFORMERS, "eval_strategy: no", {"eval_dataset": "none"}),
        (TRANSFORMERS, "eval_strategy: steps", {"eval_dataset": "auto"}),
    ],
)
def test_the_tools_defaults_stand_for_what_is_left_out_alone(
    base: str, lines: str, expected: dict[str, Any], tmp_path: Path
) -> None:
    options = [("model", "some/model"), *ROWS]
    found = imported(tmp_path, base + lines, options=options, allow_lossy=True, their_defaults=True)
    assert {name: dict(found.resolved.config)[name] for name in expected} == expected
    assert found.left_out == ()


def test_a_length_of_null_is_no_length_that_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_length is .* cannot be carried"):
        imported(tmp_path, f"{TRL}max_length: null")
    found = imported(tmp_path, f"{TRL}max_length: null", allow_lossy=True)
    assert "max_length" not in [one.name for one in found.left_out]
    settled = imported(tmp_path, f"{TRL}max_length: null", options=[("max_length", "64")])
    assert settled.resolved.config.max_length == 64


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            "type: completion, field: body",
            {
                "dataset_format": "text",
                "dataset_text_field": "body",
                "truncation_mode": "split",
            },
        ),
        ("type: chat_template, split: 'train[:9%]'", {"dataset_split": "train[:9%]"}),
        ("type: chat_template, name: de", {"dataset": "some/rows:de"}),
        (
            "type: chat_template, field_messages: turns",
            {"dataset_columns": {"messages": "turns"}},
        ),
        (
            "type: chat_template, field_messages: conversations, "
            "message_property_mappings: {role: from, content: value}",
            {"dataset_format": "sharegpt", "dataset_columns": {}},
        ),
        ("type: chat_template, roles_to_train: [assistant]", {"assistant_only_loss": True}),
        ("type: chat_template, roles_to_train: [assistant, user]", {"assistant_only_loss": False}),
        (
            "type: {field_instruction: q, field_output: a, no_input_format: '{instruction}'}",
            {"dataset_columns": {"prompt": "q", "completion": "a"}, "chat_template": "none"},
        ),
        ("ds_type: json, data_files: mine.jsonl, type: chat_template", {"dataset": "mine.jsonl"}),
    ],
)
def test_axolotls_rows_are_found(entry: str, expected: dict[str, Any], tmp_path: Path) -> None:
    path = "json" if "data_files" in entry else "some/rows"
    text = f"base_model: m\ndatasets: [{{path: {path}, {entry}}}]\n"
    config = dict(imported(tmp_path, text).resolved.config)
    assert {name: config[name] for name in expected} == expected


def test_axolotls_texts_are_split_whatever_its_strategy_for_long_rows_is(tmp_path: Path) -> None:
    text = "base_model: m\ndatasets: [{path: some/rows, type: completion}]\n"
    found = imported(tmp_path, f"{text}excess_length_strategy: truncate\n")
    assert found.resolved.config.truncation_mode == "split"
    (lost,) = found.not_carried
    assert (lost.name, lost.changes_result) == ("excess_length_strategy", False)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("path: other/rows, split: validation, type: chat_template", "other/rows"),
        ("path: other/rows, name: de, split: dev, type: chat_template", "other/rows:de"),
        ("path: json, data_files: held.jsonl, split: train, type: chat_template", "held.jsonl"),
        ("path: held.jsonl, ds_type: json, type: chat_template", "held.jsonl"),
    ],
)
def test_axolotls_held_out_rows_are_found(entry: str, expected: str, tmp_path: Path) -> None:
    found = imported(tmp_path, f"{AXOLOTL}test_datasets: [{{{entry}}}]\nval_set_size: 0\n")
    assert found.resolved.config.eval_dataset == expected
    assert found.not_carried == ()
    assert found.differences == ()


@pytest.mark.parametrize(
    "entries",
    [
        "[{type: chat_template}]",
        "[{path: a, split: validation}, {path: b, split: validation}]",
        "[{path: some/rows, split: train, type: chat_template}]",
        "[{path: json, data_files: held.jsonl, split: 'train[:9]', type: chat_template}]",
        "[{path: json, data_files: [a.jsonl, b.jsonl], type: chat_template}]",
        "[{path: some/rows, split: validation, type: completion}]",
        "held.jsonl",
    ],
)
def test_axolotls_held_out_rows_that_would_be_others_are_a_loss(
    entries: str, tmp_path: Path
) -> None:
    text = f"{AXOLOTL}test_datasets: {entries}\n"
    with pytest.raises(ConfigError, match=r"test_datasets is .* cannot be carried"):
        imported(tmp_path, text)
    assert imported(tmp_path, text, options=[("eval_dataset", "mine.jsonl")]) is not None


@pytest.mark.parametrize(
    "text",
    [
        f"{TRL.replace('rows.jsonl', 'some/rows')}eval_strategy: epoch\n",
        f"{AXOLOTL}test_datasets: [{{path: some/rows, type: chat_template}}]\n",
    ],
)
def test_a_test_split_that_may_not_be_read_is_told(text: str, tmp_path: Path) -> None:
    options = [("dataset_format", "messages")]
    (difference,) = imported(tmp_path, text, options=options).differences
    assert "the test split is evaluated on there" in difference.why
    settled = [*options, ("eval_dataset", "0.1")]
    assert imported(tmp_path, text, options=settled).differences == ()


def test_a_file_alone_has_no_test_split(tmp_path: Path) -> None:
    rows = written(tmp_path, "{}", "rows.jsonl")
    text = f"model_name_or_path: m\ndataset_name: {rows}\neval_strategy: epoch\n"
    found = imported(tmp_path, text)
    assert found.resolved.config.eval_dataset == "auto"
    assert [(one.name, one.changes_result) for one in found.not_carried] == [
        ("eval_strategy", False)
    ]


@pytest.mark.parametrize(
    "entry", ["type: alpaca", "type: chat_template, drop_system_message: true"]
)
def test_axolotls_rows_that_would_read_otherwise_are_a_loss(entry: str, tmp_path: Path) -> None:
    text = f"base_model: m\ndatasets: [{{path: some/rows, {entry}}}]\n"
    with pytest.raises(ConfigError, match="cannot be carried"):
        imported(tmp_path, text)
    assert values(tmp_path, text, allow_lossy=True)["dataset"] == "some/rows"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"file_name": "a.json"}, {"dataset": "{folder}/a.json", "dataset_format": "alpaca"}),
        (
            {"hf_hub_url": "some/rows", "split": "test"},
            {"dataset": "some/rows", "dataset_split": "test"},
        ),
        ({"hf_hub_url": "some/rows", "subset": "de"}, {"dataset": "some/rows:de"}),
        (
            {"file_name": "a.json", "columns": {"prompt": "question", "response": "answer"}},
            {
                "dataset_format": "prompt_completion",
                "dataset_columns": {"prompt": "question", "completion": "answer"},
            },
        ),
        ({"file_name": "a.json", "formatting": "sharegpt"}, {"dataset_format": "sharegpt"}),
        (
            {
                "file_name": "a.json",
                "formatting": "sharegpt",
                "columns": {"messages": "turns"},
                "tags": {"role_tag": "role", "content_tag": "content"},
            },
            {"dataset_format": "messages", "dataset_columns": {"messages": "turns"}},
        ),
    ],
)
def test_llama_factorys_registry_is_looked_up(
    entry: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / "dataset_info.json").write_text(json.dumps({"mine": entry}), encoding="utf-8")
    config = dict(imported(tmp_path, f"{LLAMA_FACTORY}dataset_dir: {folder}\n").resolved.config)
    told = {
        name: value.format(folder=folder) if isinstance(value, str) else value
        for name, value in expected.items()
    }
    assert {name: config[name] for name in told} == told


@pytest.mark.parametrize(
    "lines",
    [
        "dataset_name: some/rows\ndataset_config: de\n",
        "use_peft: false\ndatasets: [{path: some/rows, name: de}]\n",
        "dataset_name: ignored\ndatasets: [{path: some/rows, name: de}]\n",
    ],
)
def test_trls_subset_is_a_part_of_the_datasets_name(lines: str, tmp_path: Path) -> None:
    text = f"model_name_or_path: m\n{lines}"
    assert values(tmp_path, text)["dataset"] == "some/rows:de"
    held_out = values(tmp_path, f"{text}eval_strategy: epoch\n").get("eval_dataset")
    assert held_out == ("some/rows:de" if "dataset_config" in lines else None)


@pytest.mark.parametrize(
    "text",
    [
        "model_name_or_path: m\ndataset_name: rows.jsonl\ndataset_config: de\n",
        "model_name_or_path: m\nuse_peft: false\ndatasets: [{path: rows.csv, name: de}]\n",
        "base_model: m\ndatasets: [{path: rows.csv, name: de, type: chat_template}]\n",
    ],
)
def test_a_subset_of_a_file_is_a_loss(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be carried.*--allow-lossy"):
        imported(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "secret", "shown"),
    [
        ("hub_token: hf_abcdef", "hf_abcdef", "(hidden)"),
        ("wandb_api_key: '123'", "123", "(hidden)"),
        ("env: {HF_TOKEN: hf_abcdef, A: b}", "hf_abcdef", "{'A': 'b', 'HF_TOKEN': '(hidden)'}"),
        ("some_password: abc", "abc", "(hidden)"),
        ("eos_token: <end>", None, "'<end>'"),
        ("use_auth_token: true", None, "true"),
    ],
)
def test_what_opens_an_account_is_not_shown(
    line: str, secret: str | None, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = imported(tmp_path, TRL + line, allow_lossy=True)
    (lost,) = found.not_carried
    assert lost.shown_value == shown
    file = written(tmp_path, TRL + line)
    for command in (["--allow-lossy"], []):
        run(["plan", str(file), "--quick", *command])
        told = capsys.readouterr()
        assert secret is None or secret not in told.out + told.err


def test_a_damaged_registry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="registry cannot be read"):
        imported(tmp_path, f"{LLAMA_FACTORY}dataset_dir: {tmp_path}\n")


def test_the_command_says_what_became_of_the_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_llama_folder: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = [
        json.dumps({"prompt": f"{number} and 1", "completion": str(number + 1)})
        for number in range(40)
    ]
    rows.write_text("\n".join(lines), encoding="utf-8")
    text = (
        f"model_name_or_path: {tiny_llama_folder}\ndataset_name: {rows}\n"
        "max_steps: 3\nddp_timeout: 60\nneftune_noise_alpha: 5\n"
    )
    file = written(tmp_path, text)
    assert run(["plan", str(file), "--quick", "--json"]) == 2
    refusal = capsys.readouterr().err
    assert f"{file}:5: neftune_noise_alpha is 5 and cannot be carried" in refusal
    assert run(["plan", str(file), "--quick", "--json", "--allow-lossy", "--seed", "7"]) == 0
    told = capsys.readouterr()
    plan = {one["name"]: one for one in json.loads(told.out)["decisions"]}
    assert plan["max_steps"]["value"] == 3
    assert plan["seed"]["value"] == 7
    assert plan["method"]["value"] == "full"
    for word in (
        "is a configuration of TRL",
        "ddp_timeout",
        "neftune_noise_alpha",
        "would take",
        "Not the same in TRL: prompt and completion",
    ):
        assert word in told.err
