"""Where in the rendered text the assistant speaks, as character spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trimtab.data.rows import Conversation, Message, RowError
from trimtab.data.templates import Rendering, RenderRequest, TemplateChoice, render_all

Span = tuple[int, int]
SENTINEL = "TRIMTAB7F3A91C4ANSWER"


@dataclass(frozen=True, slots=True)
class RenderedConversation:
    """The whole text, and [start, end) in characters of what is trained on, in order."""

    text: str
    trained: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class _Turn:
    """One assistant turn of one conversation; None where a boundary is not known yet.

    `prompt` is the text that the model would be given to write this turn, None where the template
    refuses the messages before it.
    """

    conversation: int
    message: int
    prompt: str | None
    start: int | None
    end: int | None


def render_with_spans(
    conversations: Sequence[Conversation],
    template: TemplateChoice,
    special_tokens: Mapping[str, str],
) -> list[RenderedConversation | RowError]:
    """Each conversation as text with its trained spans, or why it cannot be had.

    An assistant's span starts where the text with the generation prompt ends, so at the first
    character that the model would have to write, and ends after what the template puts behind the
    content, its end of turn, without the whitespace after that. Where the template marks
    `generation` blocks, one for each assistant turn, these are the spans. Where a user's or a
    system's turn is trained on too, the whole text is one span, without the assistant turns that
    are not.

    Raises DataError where the template is not Jinja or breaks a limit.
    """
    wholes = render_all(
        template,
        [_request(item, item.messages) for item in conversations],
        special_tokens,
    )
    spans: dict[tuple[int, int], Span | RowError] = {}
    unmarked: list[tuple[int, int]] = []
    for index, (conversation, whole) in enumerate(zip(conversations, wholes, strict=True)):
        if isinstance(whole, RowError):
            continue
        answers = _assistant_turns(conversation)
        if len(whole.generated) == len(answers):
            spans.update(
                ((index, answer), span)
                for answer, span in zip(answers, whole.generated, strict=True)
            )
        else:
            unmarked += [(index, answer) for answer in answers if _is_needed(conversation, answer)]
    texts = ["" if isinstance(whole, RowError) else whole.text for whole in wholes]
    turns = _by_prefixes(unmarked, conversations, texts, template, special_tokens)
    spans.update(_completed(turns, conversations, texts, template, special_tokens))
    return [
        whole if isinstance(whole, RowError) else _joined(index, conversation, whole, spans)
        for index, (conversation, whole) in enumerate(zip(conversations, wholes, strict=True))
    ]


def _request(
    conversation: Conversation, messages: Sequence[Message], *, add_generation_prompt: bool = False
) -> RenderRequest:
    """These messages, which are some of the conversation's, with what it has beside them."""
    return RenderRequest(tuple(messages), add_generation_prompt, conversation.tools)


def _assistant_turns(conversation: Conversation) -> list[int]:
    messages = conversation.messages
    return [index for index, message in enumerate(messages) if message.role == "assistant"]


def _trains_whole_text(conversation: Conversation) -> bool:
    pairs = zip(conversation.messages, conversation.trained, strict=True)
    return any(trained and message.role != "assistant" for message, trained in pairs)


def _is_needed(conversation: Conversation, answer: int) -> bool:
    return conversation.trained[answer] != _trains_whole_text(conversation)


def _joined(
    index: int,
    conversation: Conversation,
    whole: Rendering,
    spans: Mapping[tuple[int, int], Span | RowError],
) -> RenderedConversation | RowError:
    needed: list[Span] = []
    for answer in _assistant_turns(conversation):
        if not _is_needed(conversation, answer):
            continue
        span = spans[index, answer]
        if isinstance(span, RowError):
            return span
        needed.append(span)
    if not _trains_whole_text(conversation):
        return RenderedConversation(whole.text, tuple(needed))
    starts = [0, *(end for _, end in needed)]
    ends = [*(start for start, _ in needed), len(whole.text)]
    return RenderedConversation(whole.text, tuple(zip(starts, ends, strict=True)))


def _by_prefixes(
    places: Sequence[tuple[int, int]],
    conversations: Sequence[Conversation],
    texts: Sequence[str],
    template: TemplateChoice,
    special_tokens: Mapping[str, str],
) -> list[_Turn]:
    """The boundaries that shorter renderings of the conversation show.

    `messages[:i]` with the generation prompt ends where turn i starts; `messages[:i+1]` ends where
    it ends. Both count only where the whole text begins with them.
    """
    requests: list[RenderRequest] = []
    for index, answer in places:
        item = conversations[index]
        requests.append(_request(item, item.messages[:answer], add_generation_prompt=True))
        if answer + 1 < len(item.messages):
            requests.append(_request(item, item.messages[: answer + 1]))
    prefixes = iter(render_all(template, requests, special_tokens))
    turns = []
    for index, answer in places:
        text = texts[index]
        before = next(prefixes)
        start = _length_of_prefix(before, text)
        if answer + 1 == len(conversations[index].messages):
            end: int | None = len(text.rstrip())
        else:
            end = _length_of_prefix(next(prefixes), text, strip=True)
        prompt = None if isinstance(before, RowError) else before.text
        turns.append(_Turn(index, answer, prompt, start, end))
    return turns


def _length_of_prefix(
    rendering: Rendering | RowError, text: str, *, strip: bool = False
) -> int | None:
    if isinstance(rendering, RowError) or not text.startswith(rendering.text):
        return None
    return len(rendering.text.rstrip() if strip else rendering.text)


def _completed(
    turns: Sequence[_Turn],
    conversations: Sequence[Conversation],
    texts: Sequence[str],
    template: TemplateChoice,
    special_tokens: Mapping[str, str],
) -> dict[tuple[int, int], Span | RowError]:
    """Every turn's span; a boundary that no prefix shows is looked for with a sentinel.

    The turn's content is replaced by the sentinel, in the whole conversation and in one that ends
    with the turn. The text around the sentinel in the first is the text around the content. In the
    second, what follows it, whitespace aside, is the end of turn, and what stands between the
    prompt and it is for the model to write too.
    """
    spans: dict[tuple[int, int], Span | RowError] = {}
    open_turns: list[_Turn] = []
    requests: list[RenderRequest] = []
    for turn in turns:
        if turn.start is not None and turn.end is not None:
            spans[turn.conversation, turn.message] = (turn.start, turn.end)
            continue
        open_turns.append(turn)
        item = conversations[turn.conversation]
        messages = list(item.messages)
        messages[turn.message] = replace(messages[turn.message], content=SENTINEL)
        requests.append(_request(item, messages))
        requests.append(_request(item, messages[: turn.message + 1]))
    renderings = iter(render_all(template, requests, special_tokens))
    for turn in open_turns:
        message = conversations[turn.conversation].messages[turn.message]
        span = _around_sentinel(
            turn, message, texts[turn.conversation], next(renderings), next(renderings)
        )
        spans[turn.conversation, turn.message] = (
            RowError(
                f"the chat template ({template.name}) does not show where turn "
                f"{turn.message + 1}, the assistant's, starts and ends"
            )
            if span is None
            else span
        )
    return spans


def _around_sentinel(
    turn: _Turn,
    message: Message,
    text: str,
    whole: Rendering | RowError,
    last: Rendering | RowError,
) -> Span | None:
    if isinstance(whole, RowError) or isinstance(last, RowError):
        return None
    if whole.text.count(SENTINEL) != 1 or last.text.count(SENTINEL) != 1:
        return None
    before, after = whole.text.split(SENTINEL)
    last_before, last_after = last.text.split(SENTINEL)
    end_of_turn = last_after.rstrip()
    start = turn.start
    if start is None:
        if not text.startswith(before):
            return None
        start = len(before)
        if turn.prompt is not None and last_before.startswith(turn.prompt):
            lead = last_before.removeprefix(turn.prompt)
            start -= len(lead) if before.endswith(lead) else 0
    if turn.end is not None:
        return start, turn.end
    end_of_content = len(text) - len(after)
    is_content = text[start:end_of_content].strip() in message.content
    if not text.endswith(after) or end_of_content < start or not is_content:
        return None
    if not after.startswith(end_of_turn):
        end_of_turn = ""
    return start, end_of_content + len(end_of_turn)
