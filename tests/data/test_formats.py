"""Each format is detected; columns of none are told with what to write."""

from __future__ import annotations

from typing import Any

import pytest
from support.conversations import (
    ANSWER,
    QUESTION,
    SHAREGPT,
    TURNS,
    conversation,
    detected,
    rows,
)

from trimtab.data.formats import detect_format
from trimtab.data.rows import Conversation, Message
from trimtab.errors import ConfigError, DataError


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


def test_alpaca_reads_an_input_that_few_rows_have() -> None:
    plain = {"instruction": "q", "output": "a"}
    few = {**plain, "input": "i"}
    detection = detect_format(rows(*[plain] * 3, few), {}, "text")
    assert conversation(few, detection).messages == (Message("user", "q\n\ni"), ANSWER)
    assert conversation(plain, detection).messages == (QUESTION, ANSWER)
    assert detection.columns == detected(plain).columns == detected(few).columns
    mapped = detected({**few, "more": "m"}, {"instruction": "instruction", "input": "more"})
    assert mapped.columns["input"] == "more"
    asked_of_input = detected({"input": "q", "output": "a"}, {"instruction": "input"})
    assert conversation({"input": "q", "output": "a"}, asked_of_input).messages[0].content == "q"


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
