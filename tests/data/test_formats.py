"""Each format is detected and understood; each fault of a row has its reason."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from trimtab.data.formats import Detection, detect_format, to_conversation
from trimtab.data.rows import Conversation, Message, RowError, SourceRow
from trimtab.errors import ConfigError, DataError

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
QUESTION, ANSWER = Message("user", "q"), Message("assistant", "a")


def rows(*columns: dict[str, Any]) -> list[SourceRow]:
    return [SourceRow("rows.jsonl", line, item) for line, item in enumerate(columns, 1)]


def detected(columns: dict[str, Any], mapping: dict[str, str] | None = None) -> Detection:
    return detect_format(rows(columns), mapping or {}, "text")


def conversation(
    columns: dict[str, Any],
    detection: Detection | None = None,
    *,
    completion_only_loss: bool = True,
    assistant_only_loss: bool = True,
    has_template: bool = True,
) -> Conversation:
    return to_conversation(
        rows(columns)[0],
        detection or detected(columns),
        completion_only_loss=completion_only_loss,
        assistant_only_loss=assistant_only_loss,
        has_template=has_template,
    )


@pytest.mark.parametrize(
    ("columns", "format_", "conversational"),
    [
        ({"text": "t"}, "text", False),
        ({"prompt": "q", "completion": "a"}, "prompt_completion", False),
        ({"prompt": TURNS[:1], "completion": TURNS[1:]}, "prompt_completion", True),
        ({"messages": TURNS}, "messages", True),
        ({"messages": TURNS, "prompt": "q", "text": "t"}, "messages", True),
        ({"instruction": "q", "input": "", "output": "a"}, "alpaca", True),
        ({"instruction": "q", "output": "a", "text": "t"}, "alpaca", True),
        ({"conversations": SHAREGPT}, "sharegpt", True),
        ({"conversations": TURNS}, "messages", True),
        ({"messages": SHAREGPT}, "sharegpt", True),
    ],
)
def test_formats_are_seen_in_the_columns(
    columns: dict[str, Any], format_: str, conversational: bool
) -> None:
    detection = detected(columns)
    assert (detection.format, detection.conversational) == (format_, conversational)
    assert detection.because
    if format_ in {"messages", "sharegpt", "prompt_completion"}:
        assert conversation(columns, detection).messages == (QUESTION, ANSWER)


@pytest.mark.parametrize(
    ("mapping", "format_"),
    [
        ({"prompt": "question", "completion": "answer"}, "prompt_completion"),
        ({"instruction": "question", "output": "answer"}, "alpaca"),
        ({"text": "answer"}, "text"),
    ],
)
def test_the_mapped_parts_decide(mapping: dict[str, str], format_: str) -> None:
    columns = {"question": "q", "answer": "a", "messages": TURNS}
    detection = detected(columns, mapping)
    assert detection.format == format_
    assert "dataset_columns maps" in detection.because
    if format_ != "text":
        assert conversation(columns, detection).messages == (QUESTION, ANSWER)
    else:
        assert conversation(columns, detection).messages == (Message("text", "a"),)


def test_a_part_that_is_not_mapped_keeps_its_name() -> None:
    columns = {"prompt": "q", "answer": "a"}
    detection = detected(columns, {"completion": "answer"})
    assert detection.columns == {"prompt": "prompt", "completion": "answer"}


def test_the_text_field() -> None:
    detection = detect_format(rows({"body": "t"}), {}, "body")
    assert conversation({"body": "t"}, detection) == Conversation(
        (Message("text", "t"),), (True,), templated=False
    )


def test_a_requested_format_wins() -> None:
    columns = {"messages": TURNS, "text": "t"}
    detection = detect_format(rows(columns), {}, "text", "text")
    assert (detection.format, detection.because) == ("text", "dataset_format is text")
    with pytest.raises(DataError, match="dataset_format is alpaca, but the rows have no column"):
        detect_format(rows(columns), {}, "text", "alpaca")
    with pytest.raises(ConfigError, match=r"maps `prompt`, which the format text does not have"):
        detect_format(rows(columns), {"prompt": "text"}, "text", "text")


def test_columns_that_were_not_parted_are_told_as_such() -> None:
    with pytest.raises(DataError, match=r"lie apart by ';': save the file with commas"):
        detected({"question;answer": "q;a"})


def test_a_few_odd_rows_do_not_decide() -> None:
    few = [{"messages": TURNS}, *[{"prompt": "q", "completion": "a"}] * 3]
    assert detect_format(rows(*few), {}, "text").format == "prompt_completion"
    found = detect_format(
        rows({}, {"text": 1}, *[{"prompt": "q", "completion": "a"}] * 3), {}, "text"
    )
    assert found.format == "prompt_completion"


def test_unknown_columns_are_named_with_what_to_write() -> None:
    with pytest.raises(DataError) as caught:
        detected({"question": "q", "answer": "a", "id": 1})
    message = str(caught.value)
    assert "Columns seen: `question`, `answer`, `id`." in message
    for name in ("text", "prompt_completion", "messages", "alpaca", "sharegpt"):
        assert name in message
    assert "dataset_columns: {prompt: question, completion: answer}" in message
    assert caught.value.where == "rows.jsonl"


def test_a_mapped_column_that_is_not_there() -> None:
    with pytest.raises(DataError, match="no column 'reply'") as caught:
        detected({"question": "q", "answer": "a"}, {"prompt": "question", "completion": "reply"})
    assert "`answer`" in str(caught.value)


@pytest.mark.parametrize("mapping", [{"promt": "q"}, {"prompt": "a", "messages": "b"}])
def test_a_mapping_of_no_format(mapping: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="parts of no format"):
        detected({"a": "q", "b": "a"}, mapping)


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
