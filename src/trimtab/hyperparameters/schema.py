"""The JSON Schema of a configuration file, for editors."""

from __future__ import annotations

from typing import Any

from trimtab.hyperparameters.catalogue import Entry, aliases, catalogue
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.hyperparameters.translations import FOREIGN, SPELLINGS


def json_schema() -> dict[str, Any]:
    """A draft 2020-12 schema that takes every name and value that a file may hold.

    Names that other tools use are taken too. What joins two keys (a thing set under two names,
    both kinds of warmup) is checked where the file is read, not here.
    """
    fields = TrainingConfig.model_json_schema()["properties"]
    properties = {
        name: _property(entry, _without_titles(fields[name])) for name, entry in catalogue().items()
    }
    for alias, name in aliases().items():
        properties[alias] = {"$ref": f"#/properties/{name}", "description": f"Means {name}."}
    for foreign in FOREIGN.values():
        properties[foreign.name] = {**foreign.schema, "description": f"{foreign.means}."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "trimtab configuration",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "allOf": [
            {"anyOf": [{"required": [written]} for written in (name, *entry.declaration.aliases)]}
            for name, entry in catalogue().items()
            if entry.required
        ],
    }


def _property(entry: Entry, schema: dict[str, Any]) -> dict[str, Any]:
    default = schema.pop("default", None)
    if entry.name in SPELLINGS and SPELLINGS[entry.name].schema != {"enum": []}:
        schema = {"anyOf": [schema, dict(SPELLINGS[entry.name].schema)]}
    described = {"description": _description(entry), **schema}
    return described if default is None else {**described, "default": default}


def _description(entry: Entry) -> str:
    declaration = entry.declaration
    sentences = [declaration.meaning, f"Takes {entry.domain}."]
    if declaration.unit is not None:
        sentences.append(f"Unit: {declaration.unit}.")
    if declaration.auto is not None:
        sentences.append(f"auto: {declaration.auto}")
    return " ".join(sentences)


def _without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "title"}
