"""Asking a measuring process, which may die of the question."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import IO, Any, Final

from trimtab.data.rows import TokenRow
from trimtab.errors import TrimtabError, error_from_json
from trimtab.probes.fork_server import IMPORT_CODE, CannotFork, ForkedProcess, ForkServer
from trimtab.probes.handover import rows_to_bytes

PROCESS_MODULE: Final = "trimtab.probes.process"
ANSWER_TIMEOUT_S: Final = 300.0
_START: Final = f"{IMPORT_CODE}module.main()"


class ProbeDied(Exception):
    """The process gave no whole answer. `reason` is a clause such as `it was killed`.

    is_deadly: the process was killed, ended, fell silent or ran out of memory, as against one that
    told of something it could not do. user_error: what it told, where a user can mend it.
    """

    def __init__(
        self, reason: str, *, is_deadly: bool, user_error: TrimtabError | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_deadly = is_deadly
        self.user_error = user_error


Answer = Mapping[str, Any]
Process = subprocess.Popen[bytes] | ForkedProcess


@contextmanager
def asked(
    request: Mapping[str, Any],
    rows: Sequence[TokenRow],
    *,
    timeout_s: float = ANSWER_TIMEOUT_S,
    module: str = PROCESS_MODULE,
    server: ForkServer | None = None,
) -> Iterator[Iterator[Answer]]:
    """Yields the answers, as they come, of a process of its own that is given request and rows.

    The answers' iterator raises ProbeDied; `timeout_s` is the longest wait for one answer. The
    process runs `module`, or the server's, and imports from where this one does; a `server` forks
    it where that can be done for the device of the request's settings. On every way out it is gone,
    and nothing is left on disk.
    """
    with TemporaryFile() as handed_over, TemporaryFile() as complaints:
        handed_over.write(rows_to_bytes(rows))
        handed_over.seek(0)
        if server is not None:
            module = server.module
            if not ForkServer.can_serve(request["settings"]["device"]):
                server = None
        process, rows_fd = _started(handed_over, complaints, module, server)
        try:
            _send(process, {**request, "rows_fd": rows_fd})
            yield _answers(process, complaints, timeout_s)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                # Closing writes what the process was gone too early to read.
                with suppress(BrokenPipeError):
                    pipe.close()


def _started(
    rows: IO[bytes], complaints: IO[bytes], module: str, server: ForkServer | None
) -> tuple[Process, int]:
    """The process, and the number that the rows' descriptor has in it."""
    if server is not None:
        with suppress(CannotFork):
            return server.start(rows, complaints)
    arguments = [json.dumps(sys.path), module]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _START, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        pass_fds=[rows.fileno()],
    )
    return process, rows.fileno()


def _send(process: Process, request: Mapping[str, Any]) -> None:
    """A process that is gone already is told of when its answers are read."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()


def _answers(process: Process, complaints: IO[bytes], timeout_s: float) -> Iterator[Answer]:
    for line in _lines(process, timeout_s):
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ProbeDied(
                answer["error"],
                is_deadly=answer["is_out_of_memory"],
                user_error=error_from_json(answer.get("user_error")),
            )
        if answer.get("done"):
            return
        yield answer
    raise ProbeDied(_how_it_ended(process.wait(), complaints), is_deadly=True)


def _lines(process: Process, timeout_s: float) -> Iterator[bytes]:
    """Whole lines of the process until it closes its end."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    pending = b""
    deadline = time.monotonic() + timeout_s
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise ProbeDied(f"it gave no answer within {timeout_s:g} s", is_deadly=True)
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            return
        *lines, pending = (pending + piece).split(b"\n")
        if lines:
            yield from lines
            deadline = time.monotonic() + timeout_s


def _how_it_ended(status: int, complaints: IO[bytes]) -> str:
    if status == -signal.SIGKILL:
        return "it was killed, as systems do when memory runs out"
    if status < 0:
        return f"it ended by {signal.Signals(-status).name}"
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").strip().splitlines()
    last = f": {lines[-1].strip()}" if lines else ""
    return f"it ended with status {status}{last}"
