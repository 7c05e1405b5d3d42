"""Rows of a file in memory, the format that is seen in them, and what they become."""

from __future__ import annotations

from typing import Any

from trimtab.data.conversations import to_conversation
from trimtab.data.formats import Detection, detect_format
from trimtab.data.rows import Conversation, Message, SourceRow

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
