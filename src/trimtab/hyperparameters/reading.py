"""Reading a configuration's YAML: version 1.2's core schema, each key with its line.

Under that schema `1e-4` is a float, `no` and `on` are texts, `010` is ten and `1_000` is a text.
Beyond it, a duplicate key is an error, and tags for objects, anchors and merges are refused: a
flat file needs none of them, and they are how a small file asks for a large structure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trimtab.errors import ConfigError
from trimtab.hyperparameters.units import format_bytes

MAX_CONFIG_BYTES: Final = 256 << 10
MAX_NESTING: Final = 8

_NULL: Final = re.compile(r"(?:null|Null|NULL|~|)")
_BOOL: Final = re.compile(r"(?:true|True|TRUE|false|False|FALSE)")
_INT: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)")
_NAN: Final = re.compile(r"\.(?:nan|NaN|NAN)")
_MAX_INT_CHARACTERS: Final = 300
"""Longer numbers are read as floats: no integer of the catalogue needs them."""

_TAG: Final = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Setting:
    """A name and a value as they were given; `where` is `config.yaml:12` or `--learning-rate`."""

    name: str
    value: Any
    where: str | None = None


def read_file(file: Path) -> list[Setting]:
    """The settings of a YAML file, in its order.

    Raises ConfigError, with file and line, where the file cannot be read, is no YAML, or is not
    one mapping from names to values.
    """
    return read_text(_text_of(file), source=str(file))


def read_text(text: str, *, source: str) -> list[Setting]:
    """As `read_file`, from the text itself; `source` is what errors call it."""
    found = _Reader(source).document(text)
    if found is None:
        return []
    pairs, _ = found
    if not isinstance(pairs, _Mapping):
        raise ConfigError(
            "the configuration is not a mapping from names to values.",
            where=f"{source}:1",
            hint="Write one hyperparameter a line, as `learning_rate: 1e-4`.",
        )
    return [
        Setting(name, _plain(value), where=f"{source}:{line}")
        for name, (value, line) in pairs.items()
    ]


def read_value(text: str) -> Any:
    """One value as an option gives it: `2e-4`, `true`, `[q_proj, v_proj]`. Raises ConfigError."""
    found = _Reader("value").document(text)
    return None if found is None else _plain(found[0])


def scalar(text: str) -> Any:
    """The value of an unquoted scalar under YAML 1.2's core schema."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text[0] in "tT"
    if len(text) <= _MAX_INT_CHARACTERS:
        if _INT.fullmatch(text):
            return int(text)
        if _OCTAL.fullmatch(text):
            return int(text[2:], 8)
        if _HEXADECIMAL.fullmatch(text):
            return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text) or _NAN.fullmatch(text):
        return float(text.replace(".", "").lower())
    return text


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_CONFIG_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"the configuration {file} cannot be read: {(reason or 'no reason given').lower()}.",
            hint="Check the path; it is taken from the current folder.",
        ) from error
    if len(content) > MAX_CONFIG_BYTES:
        raise ConfigError(
            f"{file} is larger than {format_bytes(MAX_CONFIG_BYTES)}: no configuration is.",
            hint="Give the rows as `dataset`, and the configuration as a YAML file.",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            "the file is not UTF-8 text.",
            where=f"{file}:{line}",
            hint="Save it as UTF-8.",
        ) from error


class _Mapping(dict[str, tuple[Any, int]]):
    """A mapping under construction: each value with the line of its key."""


def _plain(value: Any) -> Any:
    if isinstance(value, _Mapping):
        return {key: _plain(item) for key, (item, _) in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


class _Reader:
    """Builds values from the parser's events; `source` names the text in errors."""

    def __init__(self, source: str) -> None:
        self.source = source

    def document(self, text: str) -> tuple[Any, int] | None:
        """The only document's value and line; None where the text holds nothing."""
        from ruamel.yaml.events import DocumentStartEvent, NodeEvent

        events = self._events(text)
        found: tuple[Any, int] | None = None
        num_documents = 0
        for event in events:
            if isinstance(event, DocumentStartEvent):
                num_documents += 1
                self._check_document(event, num_documents)
            elif isinstance(event, NodeEvent):
                found = self._node(event, events, depth=0), _line(event)
        return found

    def _events(self, text: str) -> Iterator[Any]:
        """The parser's events, one by one, so that a refusal ends the parsing too."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError

        try:
            yield from YAML(typ="safe", pure=True).parse(text)
        except MarkedYAMLError as error:
            is_open = "unexpected end of stream" in str(error.problem) and error.context_mark
            mark = error.context_mark if is_open else error.problem_mark or error.context_mark
            line = 1 if mark is None else mark.line + 1
            raise self._error(_NEVER_CLOSED if is_open else _reason(error), line) from error
        # On some malformed texts the parser fails with ValueError, AssertionError and others.
        except Exception as error:
            raise self._error(_unreadable(text), _line_of_unreadable(text)) from error

    def _check_document(self, event: Any, num_documents: int) -> None:
        if num_documents > 1:
            raise self._error("a second YAML document starts here.", _line(event), "Keep one.")
        if event.version not in (None, (1, 2)):
            major, minor = event.version
            raise self._error(
                f"YAML {major}.{minor} is declared, and configurations are YAML 1.2.",
                _line(event),
                "Remove the %YAML line.",
            )

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Any:
        from ruamel.yaml.events import AliasEvent, MappingStartEvent, ScalarEvent

        line = _line(event)
        if isinstance(event, AliasEvent) or event.anchor is not None:
            mark = "*" if isinstance(event, AliasEvent) else "&"
            raise self._error(
                f"{mark}{event.anchor} is a YAML anchor, which a configuration does not take.",
                line,
                "Write the value out, or quote it where it is a text.",
            )
        if depth > MAX_NESTING:
            raise self._error(f"values are nested more than {MAX_NESTING} deep.", line)
        if isinstance(event, ScalarEvent):
            return self._scalar(event, line)
        self._check_tag(event, line, "map" if isinstance(event, MappingStartEvent) else "seq")
        if isinstance(event, MappingStartEvent):
            return self._mapping(events, depth)
        return self._sequence(events, depth)

    def _mapping(self, events: Iterator[Any], depth: int) -> _Mapping:
        from ruamel.yaml.events import MappingEndEvent, ScalarEvent

        pairs = _Mapping()
        for event in events:
            if isinstance(event, MappingEndEvent):
                break
            line = _line(event)
            if not isinstance(event, ScalarEvent):
                raise self._error("a key must be a name.", line)
            self._node(event, events, depth + 1)
            if event.value in pairs:
                raise self._error(
                    f"{event.value} is set twice, here and on line {pairs[event.value][1]}.",
                    line,
                    "Keep one of the two.",
                )
            value = self._node(next(events), events, depth + 1)
            pairs[event.value] = (value, line)
        return pairs

    def _sequence(self, events: Iterator[Any], depth: int) -> list[Any]:
        from ruamel.yaml.events import SequenceEndEvent

        items: list[Any] = []
        for event in events:
            if isinstance(event, SequenceEndEvent):
                break
            items.append(self._node(event, events, depth + 1))
        return items

    def _scalar(self, event: Any, line: int) -> Any:
        if event.tag is None:
            return scalar(event.value) if event.style is None else event.value
        if event.tag in (f"{_TAG}str", "!"):
            return event.value
        value = scalar(event.value)
        self._check_tag(event, line, _KIND_NAMES.get(type(value), "str"))
        return value

    def _check_tag(self, event: Any, line: int, kind: str) -> None:
        if event.tag not in (None, f"{_TAG}{kind}"):
            raise self._error(
                f"the tag {event.tag.replace(_TAG, '!!')} is not taken in a configuration.",
                line,
                "Values are texts, numbers, true, false, null, lists and mappings.",
            )

    def _error(self, what: str, line: int, hint: str | None = None) -> ConfigError:
        return ConfigError(what, where=f"{self.source}:{line}", hint=hint)


_KIND_NAMES: Final = {bool: "bool", int: "int", float: "float", type(None): "null"}


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


_NEVER_CLOSED: Final = "this is no valid YAML: a quote or bracket that is opened is never closed."


def _reason(error: Any) -> str:
    problem = error.problem or "the text does not parse"
    return f"this is no valid YAML: {' '.join(str(problem).split())}."


def _unreadable(text: str) -> str:
    index = _first_unprintable(text)
    if index is None:
        return "this is no valid YAML."
    return f"the character U+{ord(text[index]):04X} may not stand in YAML."


def _line_of_unreadable(text: str) -> int:
    index = _first_unprintable(text)
    return 1 if index is None else text.count("\n", 0, index) + 1


def _first_unprintable(text: str) -> int | None:
    for index, character in enumerate(text):
        if not character.isprintable() and character not in "\t\n\r\x85\u2028\u2029":
            return index
    return None
