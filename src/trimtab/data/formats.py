"""The shapes that rows come in, and how they are told apart; `conversations` reads them.

| format              | columns                                             |
| ------------------- | --------------------------------------------------- |
| `text`              | `text`                                              |
| `prompt_completion` | `prompt`, `completion`: strings, or lists of turns  |
| `messages`          | `messages`: turns of `role` and `content`           |
| `alpaca`            | `instruction`, `output`, and maybe `input`          |
| `sharegpt`          | `conversations`: turns of `from` and `value`        |

`prompt_completion`, `alpaca` and `sharegpt` take a `system` column where it is mapped. Turns may
have a `tools` column beside them, or one that is mapped: the list that the chat template is told
of, or JSON of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from trimtab.data.rows import SourceRow, listed, named
from trimtab.errors import ConfigError, DataError
from trimtab.hyperparameters.config import DatasetFormat

NUM_ROWS_LOOKED_AT = 1000
REQUIRED_PARTS: Mapping[DatasetFormat, tuple[str, ...]] = MappingProxyType(
    {
        "messages": ("messages",),
        "prompt_completion": ("prompt", "completion"),
        "sharegpt": ("conversations",),
        "alpaca": ("instruction", "output"),
        "text": ("text",),
    }
)
OPTIONAL_PARTS: Mapping[DatasetFormat, tuple[str, ...]] = MappingProxyType(
    {
        "messages": ("tools",),
        "prompt_completion": ("system", "tools"),
        "sharegpt": ("system", "tools"),
        "alpaca": ("input", "system"),
        "text": (),
    }
)
COMMON_PAIRS = (
    ("question", "answer"),
    ("query", "response"),
    ("instruction", "response"),
    ("input", "output"),
    ("prompt", "response"),
    ("source", "target"),
)


@dataclass(frozen=True, slots=True)
class Detection:
    """The format, why it is that one, and the column of each of its parts.

    `conversational`: the rows are turns, so that a chat template is needed.
    """

    format: DatasetFormat
    because: str
    columns: Mapping[str, str]
    conversational: bool


def detect_format(
    rows: Sequence[SourceRow],
    dataset_columns: Mapping[str, str],
    text_field: str,
    requested: DatasetFormat | None = None,
) -> Detection:
    """The format of rows: as requested, else by the mapped parts, else by the columns seen.

    A column counts as seen where at least half of the first 1,000 rows have it, so that a few
    broken rows change nothing.

    Raises ConfigError for a mapping that fits no format, DataError where the columns do not.
    """
    looked_at = rows[:NUM_ROWS_LOOKED_AT]
    counts = Counter(name for row in looked_at for name in row.columns)
    seen = [name for name, count in counts.items() if 2 * count >= len(looked_at)]
    format_, because = _chosen_format(looked_at, seen, dataset_columns, text_field, requested)
    columns = _columns_of(format_, seen, dataset_columns, text_field)
    missing = [columns[part] for part in REQUIRED_PARTS[format_] if columns[part] not in seen]
    if missing:
        raise _unfit(
            f"{because}, but the rows have no column {' or '.join(map(named, missing))}",
            seen,
            rows,
        )
    conversational = format_ in {"messages", "sharegpt", "alpaca"} or (
        format_ == "prompt_completion" and _holds_lists(looked_at, columns["prompt"])
    )
    return Detection(format_, because, columns, conversational)


def _chosen_format(
    rows: Sequence[SourceRow],
    seen: Sequence[str],
    dataset_columns: Mapping[str, str],
    text_field: str,
    requested: DatasetFormat | None,
) -> tuple[DatasetFormat, str]:
    if requested is not None:
        _check_parts(requested, dataset_columns)
        return requested, f"dataset_format is {requested}"
    if dataset_columns:
        format_ = _format_of_parts(dataset_columns)
        return format_, f"dataset_columns maps {listed(list(dataset_columns))}"
    for turns in ("messages", "conversations"):
        if turns in seen and _holds_lists(rows, turns):
            has_from = any("from" in turn for turn in _first_turns(rows, turns))
            return "sharegpt" if has_from else "messages", (
                f"the column {turns!r} holds turns of "
                + ("`from` and `value`" if has_from else "`role` and `content`")
            )
    for format_, parts in REQUIRED_PARTS.items():
        columns = [text_field] if format_ == "text" else list(parts)
        if set(columns) <= set(seen):
            return format_, f"the rows have {listed(columns)}"
    raise _unfit("the rows are in no known format", seen, rows)


def _check_parts(format_: DatasetFormat, dataset_columns: Mapping[str, str]) -> None:
    known = REQUIRED_PARTS[format_] + OPTIONAL_PARTS[format_]
    unknown = [part for part in dataset_columns if part not in known]
    if unknown:
        raise ConfigError(
            f"dataset_columns maps {listed(unknown)}, which the format {format_} does not have.",
            hint=f"Its parts are {listed(known)}.",
        )


def _format_of_parts(dataset_columns: Mapping[str, str]) -> DatasetFormat:
    given = set(dataset_columns)
    for format_, parts in REQUIRED_PARTS.items():
        if given & set(parts) and given <= {*parts, *OPTIONAL_PARTS[format_]}:
            return format_
    known = "; ".join(f"{name}: {', '.join(parts)}" for name, parts in REQUIRED_PARTS.items())
    raise ConfigError(
        f"dataset_columns maps {listed(list(dataset_columns))}, which are the parts of no format.",
        hint=f"The parts of each format are {known}; write them as {{part: column}}.",
    )


def _columns_of(
    format_: DatasetFormat,
    seen: Sequence[str],
    dataset_columns: Mapping[str, str],
    text_field: str,
) -> dict[str, str]:
    columns = {part: part for part in REQUIRED_PARTS[format_]}
    if format_ == "text":
        columns["text"] = text_field
    if format_ == "alpaca" and "input" not in dataset_columns.values():
        columns["input"] = "input"
    if format_ in {"messages", "sharegpt"}:
        part = REQUIRED_PARTS[format_][0]
        other = "conversations" if part == "messages" else "messages"
        if part not in seen and other in seen:
            columns[part] = other
    return {**columns, **dataset_columns}


def _holds_lists(rows: Sequence[SourceRow], column: str) -> bool:
    values = [row.columns[column] for row in rows if column in row.columns]
    return 2 * sum(isinstance(value, list) for value in values) > len(values)


def _first_turns(rows: Sequence[SourceRow], column: str) -> list[Mapping[str, Any]]:
    values = [row.columns.get(column) for row in rows]
    first = [value[0] for value in values if isinstance(value, list) and value]
    return [turn for turn in first if isinstance(turn, dict)]


def _unfit(what: str, seen: Sequence[str], rows: Sequence[SourceRow]) -> DataError:
    known = "; ".join(f"{name} ({', '.join(parts)})" for name, parts in REQUIRED_PARTS.items())
    pair = next((pair for pair in COMMON_PAIRS if set(pair) <= set(seen)), None)
    prompt, completion = pair if pair else ("<column>", "<column>")
    where = rows[0].file if rows else None
    separators = [each for each in ";|\t" if len(seen) == 1 and each in seen[0]]
    if separators:
        return DataError(
            f"{what}. The only column is {listed(seen)}.",
            where=where,
            hint=f"Its parts lie apart by {separators[0]!r}: save the file with commas.",
        )
    return DataError(
        f"{what}. Columns seen: {listed(seen) or 'none'}. Formats known: {known}.",
        where=where,
        hint=f"Write `dataset_columns: {{prompt: {prompt}, completion: {completion}}}`, or "
        "`dataset_text_field: <column>` for plain text.",
    )
