"""The keys that TRL, Axolotl and LLaMA-Factory have for a plan's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from trimtab.data.sources import name_and_subset
from trimtab.interop.dialects.axolotl_datasets import AS_IT_STANDS
from trimtab.interop.dialects.llama_factory import CUT_PROMPTS, ONE_LINE_BREAK
from trimtab.interop.writing import (
    FORMATS_OF_SWITCHES,
    Write,
    Writing,
    local_file,
    put_adapter,
    put_cadence,
    put_checkpointing,
    put_length,
    put_optimizer,
    put_precision,
    put_seeds,
)

_SCHEDULERS: Final = (
    "linear",
    "cosine",
    "constant",
    "constant_with_warmup",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "polynomial",
    "inverse_sqrt",
    "warmup_stable_decay",
)
_OPTIMIZERS: Final = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "lion": "lion_32bit",
    "sgd": "sgd",
    "adamw_schedule_free": "schedule_free_adamw",
}
_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "prompt_completion": ("prompt", "completion"),
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "text": ("text",),
}
_ADAPTER: Final = {
    "lora_r": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "lora_target_modules",
}
_HELD_OUT: Final = "rows are held out by trimtab's seeded choice, which the tool does not know"


def _trainer(writing: Writing, tool: str) -> None:
    """What transformers' TrainingArguments name, for the tools that build on them."""
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        writing.put(name, name)
    put_length(writing)
    put_optimizer(writing, "optim", _OPTIMIZERS, _SCHEDULERS, "lr_scheduler_type")
    put_precision(writing)
    put_seeds(writing, tool)
    writing.put("data_seed", "data_seed")
    writing.put("report_to", "report_to")
    if writing.values["device"] == "cpu":
        writing.put("device", "use_cpu", True)


def _masks(writing: Writing) -> str | None:
    """The switch that the rows' format is under, after leaving the others."""
    rows = writing.values["dataset_format"]
    used = None
    for name, formats in FORMATS_OF_SWITCHES.items():
        if rows in formats:
            used = name
        else:
            writing.leave(name, f"not used: rows are {rows}", changes_result=False)
    return used


def write_trl(writing: Writing) -> None:
    """SFTConfig, ScriptArguments and ModelConfig in one file, for `trl sft --config`."""
    values = writing.values
    writing.put("model", "model_name_or_path", writing.located("model"))
    writing.put("trust_remote_code", "trust_remote_code")
    writing.put("method", "use_peft", values["method"] == "lora")
    put_adapter(writing, _ADAPTER, "all-linear")
    _trl_rows(writing)
    _trainer(writing, "trl")
    put_checkpointing(writing)
    put_cadence(writing, has_held_out=False)
    writing.put("max_length", "max_length")
    if values["truncation_mode"] == "keep_start":
        writing.put("truncation_mode", "truncation_mode")
    why = "long rows lose their end there"
    writing.leave("truncation_mode", why, changes_result=True)
    writing.put("packing", "packing")
    if values["packing"]:
        writing.keys["packing_strategy"] = "bfd"
    writing.put("pad_token", "pad_token")
    if values["dataset_format"] == "prompt_completion" and values["chat_template"] != "none":
        if "chat_template" in writing.paths:
            writing.keys["chat_template_path"] = writing.located("chat_template")
        why = "prompt and completion that are strings are joined without a template there"
        writing.leave("chat_template", why, changes_result=True)
    _template(writing, "chat_template_path", ("text", "prompt_completion"))
    writing.leave_what_is_ours()


def _trl_rows(writing: Writing) -> None:
    values, rows = writing.values, writing.values["dataset_format"]
    file = local_file(writing.located("dataset"))
    if file is None:
        name, subset = name_and_subset(writing.located("dataset"))
        writing.put("dataset", "dataset_name", name)
        if subset is not None:
            writing.keys["dataset_config"] = subset
        writing.put("dataset_split", "dataset_train_split")
    else:
        reader, path = file
        entry = {"path": reader, "data_files": path, "split": values["dataset_split"]}
        writing.put("dataset", "datasets", [entry])
        writing.told_with("dataset_split")
    used = _masks(writing)
    if used is not None:
        writing.put(used, used)
    if rows == "text":
        writing.put("dataset_text_field", "dataset_text_field")
    writing.leave("dataset_text_field", f"not used: rows are {rows}", changes_result=False)
    columns = dict(values["dataset_columns"])
    if columns and rows != "text":
        renamed = ", ".join(f"{column} to {part}" for part, column in columns.items())
        why = f"columns are read by their usual names: rename {renamed}"
        writing.leave("dataset_columns", why, changes_result=True)
    writing.told_with("dataset_columns")
    if rows == "alpaca":
        why = "rows of instruction and output are not read: name them prompt and completion"
        writing.leave("dataset_format", why, changes_result=True)
    writing.leave("dataset_format", "found by the columns", changes_result=False)
    writing.leave("eval_dataset", _HELD_OUT, changes_result=values["eval_dataset"] != "none")


def _template(writing: Writing, key: str | None, untemplated: tuple[str, ...] = ("text",)) -> None:
    """`model` needs no key; a Jinja file's path where the tool takes one. Rows of the formats
    `untemplated` get no template there."""
    value = writing.values["chat_template"]
    if value == "model":
        writing.told_with("chat_template")
    elif key is not None and "chat_template" in writing.paths:
        writing.put("chat_template", key, writing.located("chat_template"))
    elif value == "none" and writing.values["dataset_format"] in untemplated:
        writing.told_with("chat_template")
    why = f"the template {value} is trimtab's: the model's own is used there"
    writing.leave("chat_template", why, changes_result=True)


def write_axolotl(writing: Writing) -> None:
    """Axolotl's YAML, for `axolotl train`."""
    values = writing.values
    writing.put("model", "base_model", writing.located("model"))
    writing.put("trust_remote_code", "trust_remote_code")
    if values["method"] == "lora":
        writing.put("method", "adapter", "lora")
    writing.told_with("method")
    put_adapter(writing, _ADAPTER, "all-linear")
    if writing.keys.get("lora_target_modules") == "all-linear":
        del writing.keys["lora_target_modules"]
        writing.keys["lora_target_linear"] = True
    _axolotl_rows(writing)
    writing.put("max_length", "sequence_len")
    _axolotl_long_rows(writing)
    writing.put("packing", "sample_packing")
    if values["packing"]:
        # The attention that keeps packed examples apart.
        writing.keys["attn_implementation"] = "flash_attention_2"
    writing.put("per_device_train_batch_size", "micro_batch_size")
    writing.put("gradient_accumulation_steps", "gradient_accumulation_steps")
    put_length(writing, epochs="num_epochs")
    put_optimizer(writing, "optimizer", _OPTIMIZERS, _SCHEDULERS, "lr_scheduler")
    put_precision(writing)
    put_seeds(writing, "axolotl")
    writing.leave("data_seed", "one seed is set there", changes_result=False)
    writing.leave("report_to", "trackers have switches of their own there", changes_result=False)
    put_checkpointing(writing)
    put_cadence(writing, has_held_out=bool(writing.keys.get("val_set_size")))
    writing.put("pad_token", "special_tokens", {"pad_token": values["pad_token"]})
    writing.leave_what_is_ours()


def _axolotl_long_rows(writing: Writing) -> None:
    """Texts are split there whatever the strategy is, and other rows never."""
    mode = writing.values["truncation_mode"]
    modes = {"drop": "drop", "keep_start": "truncate", "error": "raise"}
    if writing.values["dataset_format"] == "text":
        if mode == "split":
            writing.told_with("truncation_mode")
        writing.leave("truncation_mode", "long texts are split there", changes_result=True)
    elif mode in modes:
        writing.put("truncation_mode", "excess_length_strategy", modes[mode])
    writing.leave("truncation_mode", "long rows are not split there", changes_result=True)


def _axolotl_rows(writing: Writing) -> None:
    values, rows = writing.values, writing.values["dataset_format"]
    file = local_file(writing.located("dataset"))
    name, subset = name_and_subset(writing.located("dataset"))
    entry: dict[str, Any] = {"path": name} | ({} if subset is None else {"name": subset})
    if file is not None:
        reader, path = file
        entry = {"path": reader, "ds_type": reader, "data_files": path}
    entry["split"] = values["dataset_split"]
    writing.told_with("dataset_split", "dataset_columns", "dataset_text_field", "dataset_format")
    columns = {part: part for part in _COLUMNS[rows]} | dict(values["dataset_columns"])
    used = _masks(writing)
    if rows == "text":
        entry |= {"type": "completion", "field": values["dataset_text_field"]}
    elif rows in ("messages", "sharegpt"):
        entry |= {"type": "chat_template", "field_messages": columns[_COLUMNS[rows][0]]}
        if rows == "sharegpt":
            entry["message_property_mappings"] = {"role": "from", "content": "value"}
    else:
        prompt, completion = _COLUMNS[rows]
        entry["type"] = {
            "field_instruction": columns[prompt],
            "field_output": columns[completion],
            "format": AS_IT_STANDS,
            "no_input_format": AS_IT_STANDS,
        }
        if values["chat_template"] == "none":
            writing.told_with("chat_template")
        why = "prompt and completion get no chat template there"
        writing.leave("chat_template", why, changes_result=True)
        if rows == "alpaca" or "system" in columns:
            why = "an input or a system prompt beside the instruction is not read"
            writing.told.discard("dataset_columns")
            writing.leave("dataset_columns", why, changes_result=True)
            writing.told.discard("dataset_format")
            writing.leave("dataset_format", "written as prompt and completion", changes_result=True)
    writing.put("dataset", "datasets", [entry])
    if used is not None:
        writing.put(used, "train_on_inputs", not values[used])
    _template(writing, None)
    share = values["eval_dataset"]
    if isinstance(share, float):
        writing.put("eval_dataset", "val_set_size")
    elif share == "none":
        writing.put("eval_dataset", "val_set_size", 0.0)
    writing.leave("eval_dataset", _HELD_OUT, changes_result=True)


def write_llama_factory(writing: Writing) -> None:
    """LLaMA-Factory's YAML, for `llamafactory-cli train`, beside a `dataset_info.json`."""
    values = writing.values
    writing.keys |= {"stage": "sft", "do_train": True}
    writing.put("model", "model_name_or_path", writing.located("model"))
    writing.put("trust_remote_code", "trust_remote_code")
    writing.put("method", "finetuning_type")
    keys = _ADAPTER | {"lora_r": "lora_rank", "target_modules": "lora_target"}
    put_adapter(writing, keys, "all")
    if isinstance(writing.keys.get("lora_target"), list):
        writing.keys["lora_target"] = ",".join(writing.keys["lora_target"])
    _trainer(writing, "llamafactory")
    checkpointing = values["activation_checkpointing"]
    put_checkpointing(writing, "disable_gradient_checkpointing")
    writing.keys["disable_gradient_checkpointing"] = checkpointing == "off"
    # Under packing LLaMA-Factory takes one token off.
    writing.put("max_length", "cutoff_len", values["max_length"] + int(values["packing"]))
    cuts_alike = values["truncation_mode"] == "keep_start"
    why = CUT_PROMPTS.why if cuts_alike else "long rows are cut there"
    writing.leave("truncation_mode", why, changes_result=True)
    writing.put("packing", "packing")
    if values["packing"]:
        writing.keys["neat_packing"] = True
    _llama_factory_rows(writing)
    put_cadence(writing, has_held_out="val_size" in writing.keys)
    why = "the tokenizer's own pad token is used there; no loss falls on it"
    writing.leave("pad_token", why, changes_result=False)
    writing.leave_what_is_ours()


DATASET_NAME: Final = "trimtab"


def _llama_factory_rows(writing: Writing) -> None:
    values = writing.values
    rows = values["dataset_format"]
    writing.put("dataset", "dataset", DATASET_NAME)
    writing.told_with("dataset_split", "dataset_format", "dataset_columns")
    used = _masks(writing)
    if used is not None:
        writing.put(used, "train_on_prompt", not values[used])
    if rows == "alpaca":
        writing.differences.append(ONE_LINE_BREAK)
    if rows == "text":
        why = "plain text is of its stage pt, and this configuration is of sft"
        writing.told.discard("dataset_format")
        writing.leave("dataset_format", why, changes_result=True)
    writing.leave("dataset_text_field", f"not used: rows are {rows}", changes_result=False)
    # Without a `template`, LLaMA-Factory takes the tokenizer's own.
    _template(writing, None)
    share = values["eval_dataset"]
    if isinstance(share, float):
        writing.put("eval_dataset", "val_size")
    writing.leave("eval_dataset", _HELD_OUT, changes_result=share != "none")


def llama_factory_registry(writing: Writing) -> dict[str, Any]:
    """The entry of `dataset_info.json` that the exported configuration names."""
    values, path = writing.values, writing.located("dataset")
    name, subset = name_and_subset(path)
    is_file = "dataset" in writing.paths
    entry: dict[str, Any] = {"file_name": path} if is_file else {"hf_hub_url": name}
    if subset is not None:
        entry["subset"] = subset
    if values["dataset_split"] != "train":
        entry["split"] = values["dataset_split"]
    rows, mapped = values["dataset_format"], dict(values["dataset_columns"])
    if rows in ("messages", "sharegpt"):
        part = _COLUMNS[rows][0]
        entry |= {"formatting": "sharegpt", "columns": {"messages": mapped.get(part, part)}}
        if rows == "messages":
            entry["tags"] = {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            }
    elif rows == "prompt_completion":
        entry["columns"] = {
            "prompt": mapped.get("prompt", "prompt"),
            "response": mapped.get("completion", "completion"),
        }
    elif rows == "alpaca":
        entry["columns"] = {
            "prompt": mapped.get("instruction", "instruction"),
            "query": mapped.get("input", "input"),
            "response": mapped.get("output", "output"),
        }
    else:
        entry["columns"] = {"prompt": values["dataset_text_field"]}
    if "system" in mapped:
        entry["columns"]["system"] = mapped["system"]
    return {DATASET_NAME: entry}


WRITERS: Final[Mapping[str, Write]] = {
    "axolotl": write_axolotl,
    "llamafactory": write_llama_factory,
    "trl": write_trl,
}
