"""LLaMA-Factory's dataset names, looked up in its registry `dataset_info.json` where that is here.

After `data/README.md` and `src/llamafactory/data/parser.py` of its repository.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from trimtab.data.sources import with_subset
from trimtab.errors import ConfigError
from trimtab.interop.translating import Loss, Reading, Values

REGISTRY: Final = "dataset_info.json"
_ALPACA: Final = {"prompt": "instruction", "query": "input", "response": "output"}


def take_dataset(reading: Reading) -> None:
    folder = reading.take("dataset_dir")
    named, held_out = reading.take("dataset"), reading.take("eval_dataset")
    where = Path("data") if folder is None else Path(str(folder.value))
    if named is not None:
        reading.apply(named, lambda value: _rows(_only_name(value), where))
    if held_out is not None:
        reading.apply(
            held_out, lambda value: {"eval_dataset": _rows(_only_name(value), where)["dataset"]}
        )


def _only_name(value: Any) -> str:
    names = [name.strip() for name in str(value).split(",")] if isinstance(value, str) else value
    if not isinstance(names, list) or len(names) != 1:
        why = "several datasets, and one is trained on here"
        raise Loss(why, changes_result=True, about=("dataset",))
    return str(names[0])


def _rows(name: str, folder: Path) -> Values:
    registry = folder / REGISTRY
    if not registry.is_file():
        raise Loss(
            f"a name of {registry}, which is not here: give the rows by --dataset",
            changes_result=True,
            about=("dataset",),
        )
    entries = _read(registry)
    if not isinstance(entries.get(name), dict):
        raise Loss(
            f"{registry} has no entry of this name: give the rows by --dataset",
            changes_result=True,
            about=("dataset",),
        )
    entry = dict(entries[name])
    values = {**_source(entry, folder), **_format(entry)}
    left = [key for key, value in entry.items() if value not in (None, False, {}, "")]
    if left:
        raise Loss(
            f"{', '.join(left)} of the dataset's entry have no counterpart",
            changes_result=True,
            instead=values,
        )
    return values


def _read(registry: Path) -> dict[str, Any]:
    try:
        entries = json.loads(registry.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigError(f"the registry cannot be read: {error}.", where=str(registry)) from error
    if not isinstance(entries, dict):
        raise ConfigError("the registry is no JSON object.", where=str(registry))
    return entries


def _source(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    hub, file = entry.pop("hf_hub_url", None), entry.pop("file_name", None)
    for other in ("ms_hub_url", "om_hub_url"):
        entry.pop(other, None)
    values = {"dataset": hub if hub is not None else str(folder / str(file))}
    subset = entry.get("subset")
    joined = None if not subset or hub is None else with_subset(str(hub), str(subset))
    if joined is not None:
        del entry["subset"]
        values["dataset"] = joined
    split = entry.pop("split", None)
    if split not in (None, "train"):
        values["dataset_split"] = split
    return values


def _format(entry: dict[str, Any]) -> dict[str, Any]:
    columns, tags = (entry.pop(key, None) or {} for key in ("columns", "tags"))
    if not isinstance(columns, dict) or not isinstance(tags, dict):
        raise Loss("the entry's columns or tags are no mapping", changes_result=True)
    columns = dict(columns)
    if entry.pop("formatting", "alpaca") == "sharegpt":
        column = columns.pop("messages", "conversations")
        is_openai = (tags.get("role_tag"), tags.get("content_tag")) == ("role", "content")
        part = "messages" if is_openai else "conversations"
        values: dict[str, Any] = {"dataset_format": "messages" if is_openai else "sharegpt"}
        mapped = {} if column == part else {part: column}
        if columns.get("system") and not is_openai:
            mapped["system"] = columns.pop("system")
    else:
        values, mapped = _alpaca(columns)
    if columns:
        entry["columns"] = columns
    return {**values, **({"dataset_columns": mapped} if mapped else {})}


def _alpaca(columns: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Where columns are named, those that are not named are not read: without a query, rows are
    prompt and completion."""
    taken = {key: columns.pop(key, None) for key in _ALPACA} if columns else _ALPACA
    system = {"system": columns.pop("system")} if columns.get("system") else {}
    if taken["prompt"] is None or taken["response"] is None:
        raise Loss("the entry names no prompt or no response", changes_result=True)
    if taken["query"] is None:
        ours = {"prompt": taken["prompt"], "completion": taken["response"], **system}
        mapped = {part: column for part, column in ours.items() if column != part}
        return {"dataset_format": "prompt_completion"}, mapped
    ours = {"instruction": taken["prompt"], "input": taken["query"], "output": taken["response"]}
    mapped = {part: column for part, column in ours.items() if column != part}
    return {"dataset_format": "alpaca"}, {**mapped, **system}
