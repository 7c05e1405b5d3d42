"""Writing values as YAML that `reading` reads back the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from trimtab.hyperparameters.reading import scalar

_UNQUOTED: Final = re.compile(r"[A-Za-z0-9_./~-][A-Za-z0-9_./~+-]*")
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def yaml_value(value: Any) -> str:
    """One line of YAML for a text, number, bool, None, list, tuple or mapping of these."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _yaml_text(value)
        case Mapping():
            pairs = (f"{_yaml_text(str(key))}: {yaml_value(item)}" for key, item in value.items())
            return "{" + ", ".join(pairs) + "}"
        case Sequence():
            return "[" + ", ".join(yaml_value(item) for item in value) + "]"
        case _:
            raise TypeError(f"{value!r} has no place in a configuration")


def _yaml_text(text: str) -> str:
    plain = _UNQUOTED.fullmatch(text) and not text.startswith("-") and scalar(text) == text
    if plain:
        return text
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable() and character.isascii():
        return character
    code = ord(character)
    if character.isprintable() and not 0xD800 <= code <= 0xDFFF:
        return character
    return f"\\U{code:08X}"
