"""The shapes that rows come in, and the one shape that they all become.

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

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from trimtab.data.lines import parse_json_text
from trimtab.data.rows import Conversation, Message, RowError, SourceRow, listed, named
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
ROLES = ("system", "user", "assistant", "tool")
ROLE_NAMES = {
    **{role: role for role in ROLES},
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "observation": "tool",
}
UNREAD_TURN_KEYS = ("tool_calls", "function_call", "reasoning_content", "thinking")


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
    if format_ == "alpaca" and "input" in seen:
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


def to_conversation(
    row: SourceRow,
    detection: Detection,
    *,
    completion_only_loss: bool,
    assistant_only_loss: bool,
    has_template: bool,
) -> Conversation:
    """A row as a conversation.

    Prompt and completion strings become a user's and an assistant's turn where the model has a
    chat template, and are joined as they stand where it has none.

    Raises RowError for a row that cannot be trained on.
    """
    match detection.format:
        case "text":
            text = _text(row, detection.columns["text"])
            return Conversation((Message("text", text),), (True,), templated=False)
        case "prompt_completion":
            return _prompt_completion(row, detection, completion_only_loss, has_template)
        case "alpaca":
            return _alpaca(row, detection, completion_only_loss)
        case "messages" | "sharegpt":
            part = REQUIRED_PARTS[detection.format][0]
            turns = _turns(row, detection.columns[part], detection.format == "sharegpt")
            system = _system(row, detection)
            turns = [(item, True) for item in system] + turns
            return _conversation(turns, assistant_only_loss, _tools(row, detection))
    raise AssertionError(detection.format)


def _prompt_completion(
    row: SourceRow, detection: Detection, completion_only_loss: bool, has_template: bool
) -> Conversation:
    columns = detection.columns
    system = _system(row, detection)
    prompt, completion = _cell(row, columns["prompt"]), _cell(row, columns["completion"])
    if isinstance(prompt, list) or isinstance(completion, list):
        if not (isinstance(prompt, list) and isinstance(completion, list)):
            raise RowError("prompt and completion are not both strings or both lists of turns")
        prompt_turns = _turns(row, columns["prompt"], sharegpt=False)
        before = [
            (turn, wanted and not completion_only_loss)
            for turn, wanted in [(item, True) for item in system] + prompt_turns
        ]
        after = _turns(row, columns["completion"], sharegpt=False)
        if not any(turn.role == "assistant" for turn, _ in after):
            raise RowError("the completion has no assistant turn")
        return _conversation(before + after, completion_only_loss, _tools(row, detection))
    question = Message("user", _text(row, columns["prompt"], may_be_empty=True))
    answer = Message("assistant", _text(row, columns["completion"]))
    messages = (*system, question, answer)
    trained = tuple(not completion_only_loss for _ in messages[:-1])
    tools = _tools(row, detection) if has_template and "tools" in columns else None
    return Conversation(messages, (*trained, True), templated=has_template, tools=tools)


def _alpaca(row: SourceRow, detection: Detection, completion_only_loss: bool) -> Conversation:
    columns = detection.columns
    parts = [_text(row, columns["instruction"])]
    if "input" in columns and row.columns.get(columns["input"]) is not None:
        parts.append(_text(row, columns["input"], may_be_empty=True))
    question = Message("user", "\n\n".join(part for part in parts if part.strip()))
    messages = (
        *_system(row, detection),
        question,
        Message("assistant", _text(row, columns["output"])),
    )
    trained = tuple(not completion_only_loss for _ in messages[:-1])
    return Conversation(messages, (*trained, True), templated=True)


def _system(row: SourceRow, detection: Detection) -> list[Message]:
    column = detection.columns.get("system")
    if column is None or row.columns.get(column) in (None, ""):
        return []
    return [Message("system", _text(row, column))]


def _tools(row: SourceRow, detection: Detection) -> str | None:
    """The row's tools as JSON; None where it has none."""
    column = detection.columns.get("tools", "tools")
    value = row.columns.get(column)
    if isinstance(value, str):
        try:
            value = parse_json_text(value) if value.strip() else None
        except ValueError as error:
            raise RowError(f"column {column!r}: {error}") from None
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise RowError(f"column {column!r} holds something other than a list of tools")
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise RowError(f"column {column!r} holds a value that JSON does not have") from None


def _conversation(
    turns: list[tuple[Message, bool]], only_answers: bool, tools: str | None
) -> Conversation:
    """Turns, each with: may it be trained on. Those that may are, or only the assistant's."""
    if not any(turn.role == "assistant" for turn, _ in turns):
        raise RowError("no assistant turn")
    trained = tuple(
        wanted and (turn.role == "assistant" or not only_answers) for turn, wanted in turns
    )
    if not any(trained):
        raise RowError("every assistant turn has weight 0")
    messages = tuple(turn for turn, _ in turns)
    return Conversation(messages, trained, templated=True, tools=tools)


def _turns(row: SourceRow, column: str, sharegpt: bool) -> list[tuple[Message, bool]]:
    """Each turn, and may it be trained on: false for an assistant's of weight 0."""
    value = _cell(row, column)
    if not isinstance(value, list):
        raise RowError(f"column {column!r} holds {_kind(value)}, not a list of turns")
    if not value:
        raise RowError(f"column {column!r} holds no turns")
    return [_turn(turn, number, sharegpt) for number, turn in enumerate(value, 1)]


def _turn(turn: Any, number: int, sharegpt: bool) -> tuple[Message, bool]:
    role_key, content_key = ("from", "value") if sharegpt else ("role", "content")
    if not isinstance(turn, dict):
        raise RowError(f"turn {number} is {_kind(turn)}, not an object")
    for key in (role_key, content_key):
        if key not in turn:
            raise RowError(f"turn {number} has no {key!r}")
    name = turn[role_key]
    if not isinstance(name, str):
        raise RowError(f"the role of turn {number} is {_kind(name)}, not a string")
    if name not in ROLE_NAMES:
        raise RowError(f"turn {number} has the unknown role {named(name)}")
    for key in UNREAD_TURN_KEYS:
        if turn.get(key):
            raise RowError(f"turn {number} has {key!r}, which is not read; write it as content")
    message = Message(ROLE_NAMES[name], _content(turn[content_key], number))
    if message.role != "assistant":
        return message, True
    if not message.content.strip():
        raise RowError(f"turn {number}, the assistant's, is empty")
    weight = 1 if turn.get("weight") is None else turn["weight"]
    if weight not in (0, 1):
        raise RowError(f"the weight of turn {number} is {named(weight)}, not 0 or 1")
    return message, weight == 1


def _content(value: Any, number: int) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_content_part(part, number) for part in value)
    raise RowError(f"the content of turn {number} is {_kind(value)}, not a string")


def _content_part(part: Any, number: int) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise RowError(f"turn {number} holds something other than text")
    text = part.get("text")
    if not isinstance(text, str):
        raise RowError(f"a text part of turn {number} is {_kind(text)}, not a string")
    return text


def _cell(row: SourceRow, column: str) -> Any:
    if column not in row.columns:
        raise RowError(f"no column {column!r}")
    return row.columns[column]


def _text(row: SourceRow, column: str, *, may_be_empty: bool = False) -> str:
    value = _cell(row, column)
    if not isinstance(value, str):
        raise RowError(f"column {column!r} holds {_kind(value)}, not a string")
    if not may_be_empty and not value.strip():
        raise RowError(f"column {column!r} is empty")
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else f"a {type(value).__name__}"
