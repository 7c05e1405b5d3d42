"""What is wrong with a configuration, in sentences, all of it at once."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import Entry, nearest_names
from trimtab.hyperparameters.declaration import LARGEST_INT
from trimtab.hyperparameters.paths import path_problem
from trimtab.hyperparameters.reading import Setting, scalar

_LONGEST_SHOWN: Final = 60
_GROUPED: Final = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
_NEAR: Final = 0.75


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, as in a ConfigError; `meant` is the hyperparameter that it is about,
    as far as that is known."""

    what: str
    where: str | None = None
    hint: str | None = None
    meant: str | None = None


def raise_for(problems: Sequence[Problem]) -> None:
    """Raise one ConfigError with a line for each problem; nothing where there is none."""
    if not problems:
        return
    if len(problems) == 1:
        (problem,) = problems
        raise ConfigError(problem.what, where=problem.where, hint=problem.hint)
    lines = [
        str(ConfigError(problem.what, where=problem.where, hint=problem.hint))
        for problem in problems
    ]
    raise ConfigError("\n".join([f"the configuration has {len(lines)} problems:", *lines]))


def unknown_name(setting: Setting) -> Problem:
    near = nearest_names(setting.name)
    hint = f"Did you mean {' or '.join(near)}?" if near else "`trimtab explain` lists the names."
    return Problem(
        f"{shown(setting.name)} is no hyperparameter.",
        where=setting.where,
        hint=hint,
        meant=near[0] if near else None,
    )


def out_of_domain(setting: Setting, entry: Entry, value: Any) -> Problem:
    """`value` is the setting's after translation; the words are about what was written."""
    name = setting.name if setting.name == entry.name else f"{setting.name} ({entry.name})"
    return Problem(
        f"{name} is {shown(setting.value)}; it takes {entry.domain}.",
        where=setting.where,
        hint=_way_out(value, entry),
        meant=entry.name,
    )


def shown(value: Any) -> str:
    """A value as a sentence can hold it: short, on one line."""
    match value:
        case None:
            return "empty (null)"
        case bool():
            return "true" if value else "false"
        case str():
            text = repr(value)
        case int() | float():
            text = str(value) if isinstance(value, float) or abs(value) < 10**30 else "huge"
        case dict() | list() | tuple():
            text = reprlib.repr(value)
        case _:
            text = f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _way_out(value: Any, entry: Entry) -> str | None:
    takes_number = "number" in entry.domain
    if isinstance(value, float) and not math.isfinite(value):
        return "The value must be finite."
    if takes_number and isinstance(value, int) and abs(value) > LARGEST_INT:
        return "The number is too large."
    if isinstance(value, str) and takes_number:
        number = scalar(_as_number(value))
        if isinstance(number, int | float) and not isinstance(number, bool):
            return f"It is a text here: write {number} without quotes or separators."
        if entry.declaration.unit is not None and value[:1].isdigit():
            return f"Write the number alone; its unit is {entry.declaration.unit}."
    if isinstance(value, str) and entry.domain == "true or false":
        return "YAML 1.2 reads yes, no, on and off as texts."
    if isinstance(value, dict) and any(":" in str(name) for name in value):
        return "Put a space behind each colon."
    if isinstance(value, str):
        near = get_close_matches(value, re.findall(r"\w+", entry.domain), n=1, cutoff=_NEAR)
        return f"Did you mean {near[0]}?" if near else path_problem(value)
    return None


def _as_number(text: str) -> str:
    """Without what groups digits, and with the point for a comma that stands before decimals."""
    text = text.strip().replace("_", "")
    if _GROUPED.fullmatch(text):
        return text.replace(",", "")
    return text.replace(",", ".")
