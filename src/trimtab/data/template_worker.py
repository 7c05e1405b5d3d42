"""The process that renders chat templates, under limits of memory, time and output.

Run as a script by `trimtab.data.templates`: one JSON job on standard input, one JSON line a
rendering on standard output. It needs jinja2 and nothing else of the package, since a template is
somebody else's code: Jinja's sandbox keeps it from the process's objects, the limits keep it from
the machine.

The environment is the one that transformers documents for chat templates: trimmed blocks, loop
controls, `generation` blocks, `tojson` without HTML escapes, `raise_exception`, `strftime_now`.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from types import FrameType
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

# Two Unicode noncharacters mark where a `generation` block starts and ends.
BLOCK_START, BLOCK_END = BLOCK_MARKS = ("\ufdd0", "\ufdd1")


class LimitReached(BaseException):
    """A rendering took too long. Not an Exception, so that no template code can catch it."""


class GenerationBlocks(Extension):
    """`{% generation %}…{% endgeneration %}`: what the assistant wrote."""

    tags = {"generation"}  # noqa: RUF012 (declared so by Jinja)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        return f"{BLOCK_START}{caller()}{BLOCK_END}"


class TemplateNamespace(Namespace):
    """A namespace without underscore names, so that none reaches the interpreter's internals."""

    def __init__(*args: Any, **attributes: Any) -> None:
        self, *given = args
        values = dict(*given, **attributes)
        for name in values:
            _refuse_underscore(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def environment(day: str | None = None) -> jinja2.Environment:
    """`day`, as 2026-01-31, stands for the present time."""

    def strftime_now(format_: str) -> str:
        now = datetime.now() if day is None else datetime.fromisoformat(day)
        return now.strftime(format_)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # folding constants would compute a bomb while compiling
        extensions=[GenerationBlocks, loopcontrols],
    )
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _raise_exception
    made.globals["strftime_now"] = strftime_now
    made.globals["namespace"] = TemplateNamespace
    return made


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(signal_number: int, frame: FrameType | None) -> NoReturn:
        raise LimitReached

    if sys.platform == "win32":  # without interval timers; the parent's deadline still holds
        yield
        return
    _end_after(seconds)
    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _end_after(seconds: float) -> None:
    """Have the system end the process some seconds of work from now.

    A loop inside C, as of a power of large numbers, keeps a timer's signal waiting; not this one.
    """
    import resource

    at_most = math.ceil(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (at_most, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _limit_memory(num_bytes: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _without_marks(text: str) -> tuple[str, list[list[int]]]:
    """The text without its marks, and [start, end) of each block in it."""
    pieces: list[str] = []
    spans: list[list[int]] = []
    length = 0
    for piece in text.split(BLOCK_START):
        inside, _, after = piece.partition(BLOCK_END) if pieces else ("", "", piece)
        if pieces:
            spans.append([length, length + len(inside)])
        pieces.append(inside + after)
        length += len(inside) + len(after)
    return "".join(pieces), spans


def _limited(work: Callable[[], dict[str, Any]], max_seconds: float) -> dict[str, Any]:
    """What `work` answers, or which limit it met, or what it raised."""
    try:
        with _time_limit(max_seconds):
            return work()
    except LimitReached:
        return {"limit": f"takes over {max_seconds:g} s to render one conversation"}
    except MemoryError:
        return {"limit": "takes too much memory to render one conversation"}
    except RecursionError:
        return {"limit": "recurses without end"}
    except jinja2.exceptions.TemplateSyntaxError as error:
        return {"syntax": str(error), "line": error.lineno}
    except Exception as error:
        # Whatever a template's own code raises is the row's or the template's fault, not ours.
        return {"error": str(error) or type(error).__name__}


def _rendering(
    template: jinja2.Template, request: dict[str, Any], job: dict[str, Any]
) -> dict[str, Any]:
    tools = request["tools"]
    marked = template.render(
        messages=request["messages"],
        tools=None if tools is None else json.loads(tools),
        documents=None,
        add_generation_prompt=request["add_generation_prompt"],
        **job["variables"],
    )
    if len(marked) > job["max_chars"]:
        return {"limit": f"turns one conversation into over {job['max_chars']:,} characters"}
    if BLOCK_START not in marked:
        return {"text": marked, "generated": []}
    given = [turn["content"] for turn in request["messages"]] + [tools or ""]
    if any(mark in text for text in given for mark in BLOCK_MARKS):
        return {"error": "the row holds U+FDD0 or U+FDD1, which mark generation blocks"}
    text, spans = _without_marks(marked)
    return {"text": text, "generated": spans}


def main() -> None:
    job = json.load(sys.stdin)
    _limit_memory(job["max_bytes"])
    made: list[jinja2.Template] = []

    def compiled() -> dict[str, Any]:
        made.append(environment(job["day"]).from_string(job["template"]))
        return {}

    answer = _limited(compiled, job["max_seconds"])
    if "error" in answer:
        answer = {"limit": f"cannot be compiled: {answer['error']}"}
    if answer:
        sys.stdout.write(json.dumps(answer) + "\n")
        return
    for request in job["requests"]:
        answer = _limited(partial(_rendering, made[0], request, job), job["max_seconds"])
        sys.stdout.write(json.dumps(answer) + "\n")
        if "limit" in answer:
            return


if __name__ == "__main__":
    main()
