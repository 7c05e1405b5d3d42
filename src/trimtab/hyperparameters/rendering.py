"""The catalogue as pages for people: `explain`, and docs/hyperparameters.md.

`python -m trimtab.hyperparameters.rendering` prints the latter.
"""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Iterator

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import Entry, aliases, catalogue
from trimtab.hyperparameters.declaration import Hyperparameter
from trimtab.hyperparameters.problems import raise_for, unknown_name
from trimtab.hyperparameters.reading import Setting
from trimtab.hyperparameters.schema import json_schema
from trimtab.hyperparameters.translations import FOREIGN, SPELLINGS
from trimtab.hyperparameters.writing import yaml_value

__all__ = ["canonical_name", "docs_markdown", "explain", "explain_all", "json_schema"]

_PAGE_WIDTH = 88
_LABEL_WIDTH = 12

_INTRODUCTION = """\
# Hyperparameters

Every name below may stand in a configuration file, in the mapping that the Python functions
take, and on the command line (`--learning-rate 2e-4`, `--packing`, `--no-packing`). A later
layer wins over an earlier one: defaults, file, Python, command line. `auto` leaves the value to
trimtab, which says what it decided and why; `trimtab explain NAME` prints one entry.

A file is YAML 1.2: `1e-4` is a number, `no` and `on` are texts, a key that stands twice is an
error. Paths are taken from the current folder. Only `model` and `dataset` must be given.

Two pairs of settings exclude each other:

- `num_train_epochs` and `max_steps` in one layer: the epochs win, and the plan says so. In two
  layers, the later one wins.
- `warmup_steps` and `warmup_ratio` in one layer are an error. In two layers, the later one wins.
"""

_FOREIGN_INTRODUCTION = """\
## Names and values of other tools

Aliases of the same meaning stand with their hyperparameter above. These change their value:
"""


def canonical_name(name: str) -> str:
    """The catalogue's name for one that may be an alias, another tool's, or an option.

    Raises ConfigError for an unknown name, with the nearest ones, and for a name of another tool
    that stands for no hyperparameter here.
    """
    written = _written(name)
    canonical = aliases().get(written, written)
    if canonical in catalogue():
        return canonical
    if written in FOREIGN:
        foreign = FOREIGN[written]
        if foreign.target is None:
            raise ConfigError(f"{written} is no hyperparameter here: {foreign.means}.")
        return foreign.target
    raise_for([unknown_name(Setting(name, None))])
    raise AssertionError("an unknown name is always a problem")


def explain(name: str) -> str:
    """The page of one hyperparameter as plain text; `name` may be an alias or another tool's.

    Raises ConfigError for an unknown name, with the nearest ones.
    """
    written = _written(name)
    if written in FOREIGN:
        foreign = FOREIGN[written]
        note = _wrapped(f"Another tool's name: {foreign.means}.", "  ")
        page = "" if foreign.target is None else f"\n{_page(catalogue()[foreign.target])}"
        return f"{written}\n{note}\n{page}"
    return _page(catalogue()[canonical_name(name)])


def explain_all() -> list[tuple[str, list[tuple[str, str]]]]:
    """Families in the catalogue's order, each with its names and their meanings."""
    families: dict[str, list[tuple[str, str]]] = {}
    for entry in catalogue().values():
        lines = families.setdefault(entry.declaration.family, [])
        lines.append((entry.name, entry.declaration.meaning))
    return list(families.items())


def docs_markdown() -> str:
    """The page docs/hyperparameters.md."""
    parts = [_INTRODUCTION]
    for family, names in explain_all():
        parts.append(f"## {family[0].upper()}{family[1:]}\n")
        parts += [_section(catalogue()[name]) for name, _ in names]
    parts.append(_FOREIGN_INTRODUCTION)
    rows = [(foreign.name, foreign.means) for foreign in FOREIGN.values()]
    rows += [(f"{spelling.name}: …", spelling.means) for spelling in SPELLINGS.values()]
    parts.append("| written | meaning here |\n| --- | --- |")
    parts += [f"| `{written}` | {means} |" for written, means in rows]
    return "\n".join(parts) + "\n"


def _facts(entry: Entry) -> Iterator[tuple[str, str]]:
    """What there is to say of a hyperparameter after its meaning, as label and text."""
    declaration = entry.declaration
    yield "takes", entry.domain
    yield "default", default_text(entry)
    for label, text in (
        ("unit", declaration.unit),
        ("higher", declaration.raising),
        ("lower", declaration.lowering),
        ("guide", _guide_text(declaration)),
        ("auto", declaration.auto),
        ("evidence", declaration.evidence),
        ("change", change_text(entry)),
    ):
        if text is not None:
            yield label, text
    if declaration.aliases:
        yield "also", ", ".join(declaration.aliases)
    if entry.name in SPELLINGS:
        yield "spellings", SPELLINGS[entry.name].means


def _guide_text(declaration: Hyperparameter) -> str | None:
    """What the practitioner's guide says; where there is an `auto`, its silence is said too."""
    if declaration.guide is not None:
        return f"{declaration.guide} (Row {declaration.guide_row}.)"
    return "It does not speak of this." if declaration.auto is not None else None


def change_text(entry: Entry) -> str:
    """How to set it, in a file and on the command line."""
    example = entry.declaration.example
    option = f"--{entry.name.replace('_', '-')}"
    if entry.domain != "true or false":
        option += f" {shlex.quote(example)}"
    elif example == "false":
        option = f"--no-{entry.name.replace('_', '-')}"
    return f"`{entry.name}: {example}` in a file, `{option}` on the command line"


def default_text(entry: Entry) -> str:
    """The default as a file would hold it; `none, it must be given` where there is none."""
    return "none, it must be given" if entry.required else yaml_value(entry.default)


def _written(name: str) -> str:
    return name.removeprefix("--").replace("-", "_")


def _page(entry: Entry) -> str:
    lines = [entry.name, _wrapped(entry.declaration.meaning, "  "), ""]
    for label, text in _facts(entry):
        first = f"  {label:<{_LABEL_WIDTH}}"
        lines.append(_wrapped(text, first, " " * len(first)))
    return "\n".join(lines) + "\n"


def _wrapped(text: str, first: str, rest: str | None = None) -> str:
    return textwrap.fill(
        text,
        width=_PAGE_WIDTH,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _section(entry: Entry) -> str:
    lines = [f"### `{entry.name}`", "", entry.declaration.meaning, ""]
    lines += [f"- {label}: {text}" for label, text in _facts(entry)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(docs_markdown())
