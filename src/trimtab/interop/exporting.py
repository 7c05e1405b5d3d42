"""A plan as another tool's configuration, in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trimtab.errors import ConfigError
from trimtab.hyperparameters.writing import yaml_value
from trimtab.interop.dialects.llama_factory_datasets import REGISTRY
from trimtab.interop.dialects.writers import WRITERS, llama_factory_registry
from trimtab.interop.translating import Difference, NotCarried
from trimtab.interop.writing import Writing
from trimtab.planning.plan import Plan
from trimtab.runs.atomic import staged_folder

TITLES: Final = {"axolotl": "Axolotl", "llamafactory": "LLaMA-Factory", "trl": "TRL"}
COMMANDS: Final = {
    "axolotl": "axolotl train {file}",
    "llamafactory": "llamafactory-cli train {file}",
    "trl": "trl sft --config {file}",
}


@dataclass(frozen=True, slots=True)
class ExportedConfig:
    """A plan in another tool's words.

    files: texts by file name; the first is the configuration. command: what starts the tool, with
    `{file}` for the configuration's path. folder: where they lie, or will. differences: what the
    tool does otherwise under the values that are written.
    """

    tool: str
    folder: Path
    keys: Mapping[str, Any]
    files: Mapping[str, str]
    not_carried: tuple[NotCarried, ...]
    differences: tuple[Difference, ...]
    command: str

    @property
    def file(self) -> Path:
        """The configuration's path."""
        return self.folder / f"{self.tool}.yaml"


def export_config(plan: Plan, tool: str, folder: str | Path) -> ExportedConfig:
    """Write a plan as the configuration of `axolotl`, `llamafactory` or `trl`, all files or none.

    Every `auto` is resolved, and every hyperparameter is written, or listed with the reason.
    Raises ConfigError for another tool, and where the folder is there already.
    """
    if tool not in WRITERS:
        raise ConfigError(f"tool is {tool!r}; it takes {', '.join(WRITERS)}.")
    folder = Path(folder)
    refuse_taken_folder(folder)
    exported = rendered_config(plan, tool, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with staged_folder(folder) as staged:
        for name, text in exported.files.items():
            (staged / name).write_text(text, encoding="utf-8")
    return exported


def rendered_config(plan: Plan, tool: str, folder: Path) -> ExportedConfig:
    """What `export_config` writes. `folder` is where the files will lie, which LLaMA-Factory's
    must name."""
    writing = Writing.of(plan)
    WRITERS[tool](writing)
    assert not writing.untold, f"{tool}: {', '.join(writing.untold)}"
    files = {f"{tool}.yaml": ""}
    if tool == "llamafactory":
        writing.keys["dataset_dir"] = str(folder.absolute())
        registry = llama_factory_registry(writing)
        files[REGISTRY] = json.dumps(registry, indent=2, ensure_ascii=False) + "\n"
    files[f"{tool}.yaml"] = _yaml(writing, tool)
    return ExportedConfig(
        tool=tool,
        folder=folder,
        keys=dict(writing.keys),
        files=files,
        not_carried=tuple(writing.not_carried),
        differences=tuple(writing.differences),
        command=COMMANDS[tool],
    )


def refuse_taken_folder(folder: Path) -> None:
    if folder.exists():
        raise ConfigError(
            "the folder to export to is there already, and nothing is overwritten.",
            where=str(folder),
            hint="Name another with --output.",
        )


def _yaml(writing: Writing, tool: str) -> str:
    """Plain YAML, numbers such that readers of YAML 1.1 take them for numbers too."""
    lines = [f"# {TITLES[tool]}'s configuration of a plan of trimtab's."]
    lines += [f"{key}: {_value(value)}" for key, value in writing.keys.items()]
    lines += [
        f"# {one.name} is not carried: {one.why}"
        for one in writing.not_carried
        if one.changes_result
    ]
    lines += [f"# not the same here: {difference.why}" for difference in writing.differences]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """`1e-05` is a text in YAML 1.1, `1.0e-05` a number in 1.1 and 1.2; `no` is quoted, or it
    would be false in 1.1."""
    if isinstance(value, float):
        text = repr(value)
        mantissa, exponent, power = text.partition("e")
        if exponent and "." not in mantissa:
            return f"{mantissa}.0e{power}"
        return text
    if isinstance(value, str) and value.lower() in ("no", "yes", "on", "off", "y", "n"):
        return f'"{value}"'
    if isinstance(value, Mapping):
        pairs = (f"{yaml_value(str(key))}: {_value(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return yaml_value(value)
