"""Conversations to token ids, and which of the tokens are trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trimtab.data.rows import Conversation, Message, RowError
from trimtab.data.spans import RenderedConversation, Span, render_with_spans
from trimtab.data.templates import TemplateChoice, render
from trimtab.errors import ConfigError


class Tokenizer(Protocol):
    """What is asked of a tokenizer here; transformers' fast ones have it."""

    @property
    def chat_template(self) -> str | dict[str, str] | None: ...
    @property
    def is_fast(self) -> bool: ...
    @property
    def bos_token_id(self) -> int | None: ...
    @property
    def eos_token_id(self) -> int | None: ...
    @property
    def special_tokens_map(self) -> Mapping[str, Any]: ...

    def __call__(self, text: str | list[str], **options: Any) -> Mapping[str, Any]:
        """`input_ids` and, where asked for, `offset_mapping` of one text or of each."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """input_ids: int32 [T]. trainable: bool [T], entry 0 never True."""

    input_ids: npt.NDArray[np.int32]
    trainable: npt.NDArray[np.bool_]


def tokenize(conversation: Conversation, tokenizer: Tokenizer, template: TemplateChoice) -> Tokens:
    """One conversation's tokens. Raises what `tokenize_all` returns or raises."""
    (tokens,) = tokenize_all([conversation], tokenizer, template)
    if isinstance(tokens, RowError):
        raise tokens
    return tokens


def tokenize_all(
    conversations: Sequence[Conversation],
    tokenizer: Tokenizer,
    template: TemplateChoice,
) -> list[Tokens | RowError]:
    """Each conversation's tokens, or why it has none that can be trained on.

    A token is trained on where its characters start inside a trained span of the text; ids are
    never looked at, so an end-of-turn token is a target even where it is the pad token too.

    Templated text is tokenised without the tokenizer's own special tokens, as transformers does:
    the template writes them. Text that is joined as it stands has them, and eos at its end.

    Raises ConfigError for a tokenizer without offsets, DataError for a broken template.
    """
    if not tokenizer.is_fast:
        raise ConfigError("the tokenizer has no fast version, which gives character offsets.")
    answers: list[Tokens | RowError] = [RowError("not tokenised")] * len(conversations)
    for templated in (False, True):
        places = [i for i, item in enumerate(conversations) if item.templated is templated]
        if not places:
            continue
        chosen = [conversations[place] for place in places]
        if templated:
            rendered = render_with_spans(chosen, template, special_tokens(tokenizer))
        else:
            rendered = [_joined_as_is(conversation) for conversation in chosen]
        for place, tokens in zip(
            places, _encoded(rendered, tokenizer, templated=templated), strict=True
        ):
            answers[place] = tokens
    return answers


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The variables that a template may name, as `eos_token`."""
    return {name: str(token) for name, token in tokenizer.special_tokens_map.items()}


def adds_bos(tokenizer: Tokenizer) -> bool:
    """Does the tokenizer begin each text with its bos token?"""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("", add_special_tokens=True)["input_ids"][:1] == [bos]


def prompt_text(conversation: Conversation, tokenizer: Tokenizer, template: TemplateChoice) -> str:
    """The text that the model continues: all before the last assistant turn, with its start.

    Of a `text` row, the first half of its words. Raises RowError as `render` does.
    """
    before, _ = _divided(conversation)
    if not conversation.templated:
        return "".join(message.content for message in before)
    return render(
        template,
        before,
        add_generation_prompt=True,
        special_tokens=special_tokens(tokenizer),
        tools=conversation.tools,
    )


def prompt_ids(
    conversation: Conversation, tokenizer: Tokenizer, template: TemplateChoice
) -> list[int]:
    """The ids of `prompt_text`, with the special tokens that training puts before it."""
    text = prompt_text(conversation, tokenizer, template)
    encoded = tokenizer(
        text, add_special_tokens=not conversation.templated, return_offsets_mapping=True
    )
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    while len(ids) > 1 and tuple(offsets[len(ids) - 1]) == (0, 0):
        ids.pop()  # special tokens that the tokenizer puts at the end of a finished text
    return ids


def reference_text(conversation: Conversation) -> str:
    """What the row itself answers to `prompt_text`."""
    return _divided(conversation)[1]


def _divided(conversation: Conversation) -> tuple[tuple[Message, ...], str]:
    messages = conversation.messages
    if messages[0].role == "text":
        text = messages[0].content
        words = re.findall(r"\s*\S+", text)
        first = "".join(words[: (len(words) + 1) // 2])
        return (Message("text", first),), text[len(first) :]
    last = max(index for index, message in enumerate(messages) if message.role == "assistant")
    return messages[:last], messages[last].content


def _joined_as_is(conversation: Conversation) -> RenderedConversation:
    spans: list[Span] = []
    length = 0
    for message, trained in zip(conversation.messages, conversation.trained, strict=True):
        end = length + len(message.content)
        if trained:
            spans.append((length, end))
        length = end
    text = "".join(message.content for message in conversation.messages)
    return RenderedConversation(text, tuple(spans))


def _encoded(
    rendered: Sequence[RenderedConversation | RowError],
    tokenizer: Tokenizer,
    *,
    templated: bool,
) -> list[Tokens | RowError]:
    texts = [item.text for item in rendered if not isinstance(item, RowError)]
    if not texts:
        return [item for item in rendered if isinstance(item, RowError)]
    encoded = tokenizer(
        texts,
        add_special_tokens=not templated,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    answers: list[Tokens | RowError] = []
    for item in rendered:
        if isinstance(item, RowError):
            answers.append(item)
            continue
        ids, offsets = next(pairs)
        trainable = _trainable(np.array(offsets, dtype=np.int64).reshape(-1, 2), item.trained)
        if templated:
            tokens = _tokens(ids, trainable)
        else:
            tokens = _with_eos(ids, trainable, tokenizer.eos_token_id)
        answers.append(tokens)
    return answers


def _trainable(offsets: npt.NDArray[np.int64], spans: Sequence[Span]) -> npt.NDArray[np.bool_]:
    """offsets: [T, 2] characters of each token. Is its start inside a span?

    Byte-level tokenizers report a token of spaces alone as empty, at its end: such a token starts
    where the one before it ends.
    """
    starts = offsets[:, 0].copy()
    is_empty = offsets[:, 0] == offsets[:, 1]
    previous_ends = np.concatenate([[0], np.maximum.accumulate(offsets[:, 1])[:-1]])
    starts[is_empty] = previous_ends[is_empty]
    trainable = np.zeros(len(offsets), dtype=np.bool_)
    for start, end in spans:
        trainable |= (starts >= start) & (starts < end)
    return trainable


def _with_eos(ids: list[int], trainable: npt.NDArray[np.bool_], eos_token_id: int | None) -> Tokens:
    if eos_token_id is None:
        return _tokens(ids, trainable)
    if not ids or ids[-1] != eos_token_id:
        ids = [*ids, eos_token_id]
        trainable = np.append(trainable, True)
    trainable[-1] = True
    return _tokens(ids, trainable)


def _tokens(ids: list[int], trainable: npt.NDArray[np.bool_]) -> Tokens:
    if ids:
        trainable[0] = False
    return Tokens(np.array(ids, dtype=np.int32), trainable)
