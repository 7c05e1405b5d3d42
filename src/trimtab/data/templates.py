"""Which chat template turns messages into text, and the rendering of it in a closed room."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from trimtab.data.rows import Message, RowError
from trimtab.errors import ConfigError, DataError
from trimtab.hyperparameters.declaration import AUTO

MAX_RENDERED_CHARS = 16_000_000
MAX_RENDER_S = 5.0
MAX_WORKER_BYTES = 1 << 30
WORKER = Path(__file__).with_name("template_worker.py")
MAX_REQUEST_CHARS = 32_000_000
WORKER_START_S = 60.0

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}Assistant: {{ message.content }}{{ eos_token }}\n"
    "{% else %}{{ message.role | capitalize }}: {{ message.content }}\n"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


@dataclass(frozen=True, slots=True)
class TemplateChoice:
    """`source_text` is the Jinja source, None where no template is applied.

    `day` is what a template that writes the date (by `strftime_now`) is told, at midnight; None is
    the time of rendering.
    """

    name: str
    source_text: str | None
    because: str
    day: date | None = None


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """Messages to render, with what starts the assistant's turn at the end or without.

    `tools` is a JSON list of what the template is told of as `tools`.
    """

    messages: tuple[Message, ...]
    add_generation_prompt: bool
    tools: str | None = None


@dataclass(frozen=True, slots=True)
class Rendering:
    """The text, and [start, end) in characters of each of the template's `generation` blocks."""

    text: str
    generated: tuple[tuple[int, int], ...]


def choose_template(
    model_template: str | None, choice: str, *, conversational: bool, adds_bos: bool
) -> TemplateChoice:
    """The template that `chat_template` asks for.

    `model` is the model's own. `plain` is text of the form `User: …`, `Assistant: …`, in which eos
    ends the assistant's turn, so that no new token has to be learnt. `none` joins the parts as they
    stand. `auto` is `model`, or where it has none `plain` for rows that are `conversational` and
    `none` for others. Anything else is the path of a Jinja file. `adds_bos`: the tokenizer begins
    each text with its bos token, which the plain template then writes.

    Raises ConfigError for a file that cannot be read, for `model` where the model has none, and
    for `none` with conversations.
    """
    if choice == AUTO:
        kind, because = _automatic(model_template, conversational)
    else:
        kind, because = choice, f"chat_template is {choice}"
    if kind == "none":
        if conversational:
            raise ConfigError(
                "chat_template is `none`, but the rows are conversations.",
                hint="Set it to `auto` or to the path of a Jinja file.",
            )
        return TemplateChoice("none", None, because)
    if kind == "plain":
        bos = "{{ bos_token }}" if adds_bos else ""
        return TemplateChoice("plain User/Assistant", bos + PLAIN_TEMPLATE, because)
    if kind == "model":
        if model_template is None:
            raise ConfigError(
                "chat_template is `model`, and the model's tokenizer has none.",
                hint="Set it to `auto`, `plain` or to the path of a Jinja file.",
            )
        return TemplateChoice("the model's own", model_template, because)
    return TemplateChoice(kind, _read(kind), because)


def _automatic(model_template: str | None, conversational: bool) -> tuple[str, str]:
    if model_template is not None:
        return "model", "the tokenizer has a template"
    if conversational:
        return "plain", "the tokenizer has no template and the rows are conversations"
    return "none", "the tokenizer has no template and the rows need none"


def render(
    template: TemplateChoice,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool,
    special_tokens: Mapping[str, str],
    tools: str | None = None,
) -> str:
    """The text of the messages. `special_tokens` are the template's variables, as `bos_token`;
    `tools` is a JSON list.

    Raises RowError where the template refuses these messages, DataError where it is not Jinja or
    breaks a limit.
    """
    request = RenderRequest(tuple(messages), add_generation_prompt, tools)
    (rendering,) = render_all(template, [request], special_tokens)
    if isinstance(rendering, RowError):
        raise rendering
    return rendering.text


def render_all(
    template: TemplateChoice,
    requests: Sequence[RenderRequest],
    special_tokens: Mapping[str, str],
) -> list[Rendering | RowError]:
    """A rendering of each request, or why the template refused it.

    It happens in a process of its own with limits: 5 s and 16 million characters a conversation,
    1 GiB in all. Raises DataError where the template is not Jinja or breaks a limit.
    """
    if template.source_text is None:
        raise ValueError(f"the template {template.name!r} renders nothing")
    answers: list[Rendering | RowError] = []
    for part in _parts(requests):
        job = {
            "template": template.source_text,
            "variables": dict(special_tokens),
            "day": None if template.day is None else template.day.isoformat(),
            "requests": part,
            "max_seconds": MAX_RENDER_S,
            "max_chars": MAX_RENDERED_CHARS,
            "max_bytes": MAX_WORKER_BYTES,
        }
        answers += [_answer(template, record) for record in _run_worker(template, job)]
    assert len(answers) == len(requests)
    return answers


def _parts(requests: Sequence[RenderRequest]) -> Iterator[list[dict[str, Any]]]:
    """The requests as JSON values, in parts that one process can hold."""
    part: list[dict[str, Any]] = []
    num_chars = 0
    for request in requests:
        messages = [{"role": turn.role, "content": turn.content} for turn in request.messages]
        part.append(
            {
                "messages": messages,
                "add_generation_prompt": request.add_generation_prompt,
                "tools": request.tools,
            }
        )
        num_chars += sum(len(turn.content) for turn in request.messages)
        num_chars += len(request.tools or "")
        if num_chars > MAX_REQUEST_CHARS:
            yield part
            part, num_chars = [], 0
    if part:
        yield part


def _run_worker(template: TemplateChoice, job: Mapping[str, Any]) -> list[dict[str, Any]]:
    deadline_s = WORKER_START_S + MAX_RENDER_S + 0.02 * len(job["requests"])
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(WORKER)],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=deadline_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _broken(template, "does not come to an end") from None
    records = [json.loads(line) for line in done.stdout.splitlines()]
    if records and ("limit" in records[-1] or "syntax" in records[-1]):
        return records
    if sys.platform != "win32" and done.returncode == -signal.SIGXCPU:
        raise _broken(template, f"takes over {job['max_seconds']:g} s to render one conversation")
    if done.returncode != 0 or len(records) != len(job["requests"]):
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise _broken(template, f"cannot be rendered ({reason[0]})")
    return records


def _answer(template: TemplateChoice, record: Mapping[str, Any]) -> Rendering | RowError:
    if "text" in record:
        spans = tuple((start, end) for start, end in record["generated"])
        return Rendering(record["text"], spans)
    if "error" in record:
        return RowError(f"the chat template ({template.name}) refuses it: {record['error']}")
    if "syntax" in record:
        raise _broken(template, f"is not Jinja: {record['syntax']} (line {record['line']})")
    raise _broken(template, record["limit"])


def _broken(template: TemplateChoice, fault: str) -> DataError:
    return DataError(
        f"the chat template ({template.name}) {fault}.",
        hint="Give another one: `chat_template: <path of a Jinja file>`.",
    )


def _read(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"chat_template: no such file: {path}.",
            hint="Use `auto`, `model`, `plain`, `none` or a Jinja file.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"chat_template: {path} cannot be read: {error}.") from None
