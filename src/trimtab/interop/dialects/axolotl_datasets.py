"""What Axolotl's `datasets` say of rows, their columns and what is trained on in them.

After `axolotl/utils/schemas/datasets.py` and `axolotl/prompt_strategies/`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from trimtab.data.sources import with_subset
from trimtab.hyperparameters.reading import Setting
from trimtab.interop.dialects.rows import (
    HELD_OUT_SPLITS,
    VALIDATION_FIRST,
    file_or_path,
    is_held_out_split,
)
from trimtab.interop.translating import Loss, Reading, Values, as_bool

_HARMLESS: Final = {"ds_type", "trust_remote_code", "preprocess_shards", "field_thinking"}
_EMPTY: Final[tuple[Any, ...]] = (None, False, "", [], {})


def take_datasets(reading: Reading) -> None:
    """`datasets`, `test_datasets` and `train_on_inputs`, which decide the masks together."""
    inputs = reading.take("train_on_inputs")
    on_inputs = inputs is not None and as_bool(inputs.value) is True
    datasets, tests = reading.take("datasets"), reading.take("test_datasets")
    if tests is not None:
        rows = [] if datasets is None else _entries(datasets.value)
        reading.apply(tests, lambda value: _held_out(_entries(value), rows, reading))
    if datasets is not None:
        _take(reading, datasets, on_inputs)
    if inputs is not None:
        reading.carry(
            inputs, {"completion_only_loss": not on_inputs, "assistant_only_loss": not on_inputs}
        )


def _held_out(
    entries: list[dict[str, Any]], rows: list[dict[str, Any]], reading: Reading
) -> Values:
    """The dataset to evaluate on, whose rows are read as those to train on. Raises Loss."""
    about = ("eval_dataset",)
    if len(entries) != 1:
        raise Loss("one held-out dataset is read", changes_result=True, about=about)
    if not isinstance(entries[0].get("path"), str):
        raise Loss("it names no path", changes_result=True, about=about)
    entry = entries[0]
    is_file = bool(entry.get("data_files") or entry.get("ds_type") or Path(entry["path"]).is_file())
    values = {"eval_dataset": _named_source(entry)}
    split = entry.pop("split", None) or ("train" if is_file else "test")
    if is_file and split != "train":
        why = f"the file is read whole, and not {split} of it"
        raise Loss(why, changes_result=True, about=about, instead=values)
    if not is_file and not is_held_out_split(split):
        why = f"{HELD_OUT_SPLITS}, and not {split}"
        raise Loss(why, changes_result=True, about=about, instead=values)
    if split == "test":
        reading.differences.append(VALIDATION_FIRST)
    if rows and _shape(entry) != _shape(rows[0]):
        why = "its rows are read as those of datasets, which are of another shape"
        raise Loss(why, changes_result=True, about=about, instead=values)
    if entry.get("data_files") is not None or entry.get("name") is not None:
        raise Loss("one file or dataset is read", changes_result=True, about=about, instead=values)
    return values


def _shape(entry: dict[str, Any]) -> dict[str, Any]:
    """What an entry says of its rows, not of where they lie."""
    places = {"path", "data_files", "name", "split"} | _HARMLESS
    return {key: value for key, value in entry.items() if key not in places}


def _entries(value: Any) -> list[dict[str, Any]]:
    return [dict(entry) for entry in _listed(value) if isinstance(entry, dict)]


def _take(reading: Reading, setting: Setting, on_inputs: bool) -> None:
    """One entry; of several, the first is what is left where the loss is allowed."""
    entries = _entries(setting.value)
    if not entries or not isinstance(entries[0].get("path"), str):
        why = "it names no path"
        reading.lose(setting, Loss(why, changes_result=True, about=("dataset",)))
        return
    if len(entries) > 1:
        why = "several datasets, and one is trained on here: the first"
        reading.lose(setting, Loss(why, changes_result=True, about=("dataset",)))
    entry = entries[0]
    values, losses = _rows(entry)
    values |= _source(entry)
    if not on_inputs:
        values |= _masks(entry, losses)
    losses += [
        f"{key} has no counterpart"
        for key, value in entry.items()
        if key not in _HARMLESS and value not in _EMPTY
    ]
    reading.carry(setting, values)
    if values.get("truncation_mode") == "split":
        strategy = reading.take("excess_length_strategy")
        if strategy is not None:
            why = "texts are split at sequence_len, so none is too long"
            reading.lose(strategy, Loss(why, changes_result=False))
    if losses:
        named = Setting("datasets", values["dataset"], setting.where)
        reading.lose(named, Loss("; ".join(losses), changes_result=True, about=("dataset",)))


def _named_source(entry: dict[str, Any]) -> Any:
    """Takes an entry's path or file, with the subset where it is a dataset of the hub."""
    dataset, subset = file_or_path(entry), entry.get("name")
    joined = None if subset is None else with_subset(str(dataset), str(subset))
    if joined is None:
        return dataset
    del entry["name"]
    return joined


def _source(entry: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {"dataset": _named_source(entry)}
    split = entry.pop("split", None)
    if split is not None and split != "train":
        values["dataset_split"] = split
    return values


def _rows(entry: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The format and its columns, and what of it is not the same here."""
    kind = entry.pop("type", None)
    if isinstance(kind, dict):
        return _own_type(kind)
    if kind is None:
        return {}, ["the type is left out"]
    name = str(kind).removesuffix(".load")
    if name in ("chat_template", "sharegpt"):
        return _turns(entry, name)
    if name == "completion":
        column = entry.pop("field", None) or "text"
        values = {"dataset_format": "text", "dataset_text_field": column}
        return {**values, "truncation_mode": "split"}, []
    if re.match(r"alpaca(_chat)?(\.|:|$)", name):
        why = "Alpaca's wording around the instruction becomes the model's chat template"
        return {"dataset_format": "alpaca"}, [why]
    return {}, [f"rows of the type {name} are not known here"]


def _turns(entry: dict[str, Any], name: str) -> tuple[dict[str, Any], list[str]]:
    """Turns under `messages` or `conversations`, with their keys for role and content."""
    default = "messages" if name == "chat_template" else "conversations"
    column = entry.pop("field_messages", None) or default
    mapping, roles = entry.pop("message_property_mappings", None), entry.pop("roles", None)
    losses = [
        f"{key} is no mapping"
        for key, value in (("message_property_mappings", mapping), ("roles", roles))
        if value and not isinstance(value, dict)
    ]
    mapping = mapping if isinstance(mapping, dict) else {}
    role = mapping.get("role") or entry.pop("message_field_role", None) or "role"
    content = mapping.get("content") or entry.pop("message_field_content", None) or "content"
    entry.pop("message_field_role", None)
    entry.pop("message_field_content", None)
    entry.pop("field", None)
    if name == "sharegpt":
        role, content = "from", "value"
    others = sorted(set(mapping) - {"role", "content"})
    losses += [f"{', '.join(others)} of a turn are not read"] if others else []
    template = entry.pop("chat_template", None)
    if template not in (None, "tokenizer_default"):
        losses.append(f"the template {template} is the model's own here")
    unusual = [
        f"{theirs} for {ours}"
        for ours, names in (roles if isinstance(roles, dict) else {}).items()
        for theirs in _listed(names)
        if _ROLES.get(str(theirs)) != ours
    ]
    if unusual:
        losses.append(f"roles named {', '.join(unusual)} are not known")
    if (role, content) == ("role", "content"):
        return {"dataset_format": "messages", **_column("messages", column)}, losses
    if (role, content) == ("from", "value"):
        return {"dataset_format": "sharegpt", **_column("conversations", column)}, losses
    return {}, [*losses, f"turns of {role} and {content} are not read"]


_ROLES: Final = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _column(part: str, column: str) -> Values:
    return {} if column == part else {"dataset_columns": {part: column}}


def _own_type(kind: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Columns named one by one, put together by a wording and without a chat template."""
    columns = {
        "prompt": kind.get("field_instruction") or "instruction",
        "completion": kind.get("field_output") or "output",
    }
    values = {
        "dataset_format": "prompt_completion",
        "dataset_columns": columns,
        "chat_template": "none",
    }
    wordings = (kind.get("format", AS_IT_STANDS), kind.get("no_input_format"))
    losses = []
    if any(wording != AS_IT_STANDS for wording in wordings):
        losses.append("prompt and completion are joined without a wording")
    if kind.get("system_prompt") or kind.get("field_system") or kind.get("field_input"):
        losses.append("a system prompt or an input beside the instruction is not read")
    return values, losses


AS_IT_STANDS: Final = "{instruction}"
"""The wording that leaves an instruction alone."""


def _masks(entry: dict[str, Any], losses: list[str]) -> dict[str, Any]:
    """By default the assistant's turns are trained on, each with its end token."""
    roles = entry.pop("roles_to_train", None)
    ends = [entry.pop(name, None) for name in ("train_on_eos", "train_on_eot")]
    if any(end not in (None, "turn") for end in ends):
        losses.append("an assistant's end of turn is trained on, and no other")
    if roles is None:
        return {"assistant_only_loss": True}
    roles = [str(role) for role in _listed(roles)]
    if roles and set(roles) <= {"assistant", "gpt"}:
        return {"assistant_only_loss": True}
    if set(roles) >= {"assistant", "user"}:
        return {"assistant_only_loss": False}
    losses.append(f"the trained roles are the assistant's, not {', '.join(roles) or 'none'}")
    return {}
