"""Rows of each format are understood; each fault of a row has its reason."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from support.conversations import (
    ANSWER,
    QUESTION,
    SHAREGPT,
    TURNS,
    conversation,
    detected,
)

from trimtab.data.rows import Conversation, Message, RowError


@pytest.mark.parametrize("has_template", [True, False])
def test_prompt_and_completion_strings(has_template: bool) -> None:
    columns = {"prompt": "q", "completion": "a"}
    made = conversation(columns, has_template=has_template)
    assert made == Conversation((QUESTION, ANSWER), (False, True), templated=has_template)
    whole = conversation(columns, completion_only_loss=False, has_template=has_template)
    assert whole.trained == (True, True)


def test_prompt_and_completion_turns() -> None:
    earlier = [*TURNS, {"role": "user", "content": "more"}]
    columns = {"prompt": earlier, "completion": [{"role": "assistant", "content": "b"}]}
    made = conversation(columns)
    assert [message.content for message in made.messages] == ["q", "a", "more", "b"]
    assert made.trained == (False, False, False, True)
    assert conversation(columns, completion_only_loss=False).trained == (True,) * 4


def test_turns_need_a_template() -> None:
    columns = {"prompt": TURNS[:1], "completion": TURNS[1:]}
    with pytest.raises(RowError, match="need a chat template and there is none"):
        conversation(columns, has_template=False)


def test_alpaca_joins_its_input() -> None:
    columns = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert conversation(columns).messages == (
        Message("user", "Add.\n\n1 2"),
        Message("assistant", "3"),
    )
    without = {"instruction": "Add.", "input": None, "output": "3"}
    assert conversation(without, detected(columns)).messages[0] == Message("user", "Add.")


def test_a_system_column_counts_where_it_is_mapped() -> None:
    columns = {"prompt": "q", "completion": "a", "system": "s"}
    assert len(conversation(columns).messages) == 2
    mapped = detected(columns, {"prompt": "prompt", "system": "system"})
    assert conversation(columns, mapped).messages[0] == Message("system", "s")
    assert len(conversation({**columns, "system": ""}, mapped).messages) == 2


def test_roles_of_every_name() -> None:
    names = ["system", "human", "gpt", "observation", "assistant", "user", "model"]
    columns = {"conversations": [{"from": name, "value": "x"} for name in names]}
    made = conversation(columns)
    roles = ["system", "user", "assistant", "tool", "assistant", "user", "assistant"]
    assert [message.role for message in made.messages] == roles
    assert made.trained == tuple(role == "assistant" for role in roles)
    assert all(conversation(columns, assistant_only_loss=False).trained)


def test_a_turn_of_weight_0_is_not_trained_on() -> None:
    turns = [*TURNS, TURNS[0], {"role": "assistant", "content": "b", "weight": 0}]
    assert conversation({"messages": turns}).trained == (False, True, False, False)
    trained = conversation({"messages": turns}, assistant_only_loss=False).trained
    assert trained == (True, True, True, False)


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "q"}, {"type": "text", "text": "!"}]
    turns = [{"role": "user", "content": parts}, TURNS[1]]
    assert conversation({"messages": turns}).messages[0] == Message("user", "q!")


def answer(**changes: Any) -> dict[str, Any]:
    return {"messages": [TURNS[0], {**TURNS[1], **changes}]}


BAD_ROWS: list[tuple[str, dict[str, Any], str]] = [
    ("text", {}, "no column 'text'"),
    ("text", {"text": 3}, "column 'text' holds a number, not a string"),
    ("text", {"text": None}, "column 'text' holds nothing, not a string"),
    ("text", {"text": "  \n"}, "column 'text' is empty"),
    ("text", {"text": ["t"]}, "column 'text' holds a list, not a string"),
    ("prompt_completion", {"completion": "a"}, "no column 'prompt'"),
    ("prompt_completion", {"prompt": "q"}, "no column 'completion'"),
    ("prompt_completion", {"prompt": "q", "completion": ""}, "column 'completion' is empty"),
    ("prompt_completion", {"prompt": 1, "completion": "a"}, "column 'prompt' holds a number"),
    ("prompt_completion", {"prompt": True, "completion": "a"}, "'prompt' holds a boolean"),
    ("prompt_completion", {"prompt": TURNS, "completion": "a"}, "not both strings or both lists"),
    ("prompt_completion", {"prompt": TURNS, "completion": TURNS[:1]}, "has no assistant turn"),
    ("prompt_completion", {"prompt": TURNS, "completion": []}, "'completion' holds no turns"),
    ("alpaca", {"instruction": "q", "output": " "}, "column 'output' is empty"),
    ("alpaca", {"instruction": "", "output": "a"}, "column 'instruction' is empty"),
    ("alpaca", {"instruction": "q", "output": {"a": 1}}, "'output' holds an object"),
    ("messages", {"other": 1}, "no column 'messages'"),
    ("messages", {"messages": []}, "column 'messages' holds no turns"),
    ("messages", {"messages": "hello"}, "holds a string, not a list of turns"),
    ("messages", {"messages": ["hello"]}, "turn 1 is a string, not an object"),
    ("messages", {"messages": [{"content": "q"}]}, "turn 1 has no 'role'"),
    ("messages", {"messages": [{"role": "user"}]}, "turn 1 has no 'content'"),
    ("messages", {"messages": TURNS[:1]}, "no assistant turn"),
    ("messages", answer(role="wizard"), "turn 2 has the unknown role 'wizard'"),
    ("messages", answer(role=None), "the role of turn 2 is nothing, not a string"),
    ("messages", answer(content=""), "turn 2, the assistant's, is empty"),
    ("messages", answer(content=None), "the content of turn 2 is nothing, not a string"),
    ("messages", answer(content=[{"type": "image"}]), "turn 2 holds something other than text"),
    ("messages", answer(content=[{"type": "text"}]), "a text part of turn 2 is nothing"),
    ("messages", answer(tool_calls=[{"name": "f"}]), "turn 2 has 'tool_calls', which is not read"),
    ("messages", answer(reasoning_content="hm"), "turn 2 has 'reasoning_content'"),
    ("messages", answer(weight=0), "every assistant turn has weight 0"),
    ("messages", answer(weight=0.5), "the weight of turn 2 is 0.5, not 0 or 1"),
    ("sharegpt", {"conversations": TURNS}, "turn 1 has no 'from'"),
    ("sharegpt", {"conversations": SHAREGPT[:1]}, "no assistant turn"),
]
GOOD_ROWS: dict[str, dict[str, Any]] = {
    "text": {"text": "t"},
    "prompt_completion": {"prompt": "q", "completion": "a"},
    "alpaca": {"instruction": "q", "output": "a"},
    "messages": {"messages": TURNS},
    "sharegpt": {"conversations": SHAREGPT},
}


@pytest.mark.parametrize(("format_", "columns", "reason"), BAD_ROWS)
def test_each_bad_row_has_its_reason(format_: str, columns: dict[str, Any], reason: str) -> None:
    detection = detected(GOOD_ROWS[format_])
    assert detection.format == format_
    with pytest.raises(RowError) as caught:
        conversation(columns, detection)
    assert reason in caught.value.reason


TOOLS = [{"type": "function", "function": {"name": "add"}}]


@pytest.mark.parametrize("columns", [{"messages": TURNS}, {"conversations": SHAREGPT}])
@pytest.mark.parametrize(
    ("tools", "told"),
    [
        (TOOLS, TOOLS),
        (json.dumps(TOOLS), TOOLS),
        ([], None),
        ("[]", None),
        ("", None),
        (None, None),
    ],
)
def test_tools_beside_turns_go_to_the_template(
    columns: dict[str, Any], tools: Any, told: list[Any] | None
) -> None:
    made = conversation({**columns, "tools": tools})
    assert (None if made.tools is None else json.loads(made.tools)) == told


def test_tools_may_be_in_a_column_of_another_name() -> None:
    for columns, mapping in (
        ({"messages": TURNS, "functions": TOOLS}, {"messages": "messages"}),
        (
            {"prompt": "q", "completion": "a", "functions": TOOLS},
            {"prompt": "prompt", "completion": "completion"},
        ),
    ):
        detection = detected(columns, {**mapping, "tools": "functions"})
        assert conversation(columns, detection).tools == json.dumps(TOOLS)


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        ("a hammer", "column 'tools': not JSON"),
        ({"name": "add"}, "something other than a list of tools"),
        (["add"], "something other than a list of tools"),
        ([{"since": date(2026, 1, 31)}], "a value that JSON does not have"),
    ],
)
def test_other_tools_are_a_bad_row(tools: Any, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        conversation({"messages": TURNS, "tools": tools})
