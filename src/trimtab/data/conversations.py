"""The one shape that rows of every format become: turns, and which of them are trained on."""

from __future__ import annotations

import json
from typing import Any

from trimtab.data.formats import REQUIRED_PARTS, Detection
from trimtab.data.lines import parse_json_text
from trimtab.data.rows import Conversation, Message, RowError, SourceRow, named

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
    chat template, and are joined as they stand where it has none; lists of turns need one.

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
        if not has_template:
            raise RowError(
                "its turns need a chat template and there is none; set `chat_template` to plain"
            )
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
