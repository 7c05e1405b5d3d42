"""A fork server for measuring processes: one imports what they take, each of them is its fork."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any, Final

from trimtab.probes.forking import ENDED, FORK, REPLY, STARTED, WAIT
from trimtab.probes.mapped_pages import are_pages_told

TIMEOUT_S: Final = 300.0
IMPORT_CODE: Final = """
import signal
# Ctrl-C and a manager's stop reach the whole group; the asking process ends this one.
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
from trimtab.models.lean_imports import lean_imports
with lean_imports():
    module = importlib.import_module(sys.argv[2])
"""
"""Of a process with the arguments sys.path, as JSON, and a module's name."""
_SERVE_CODE: Final = f"""{IMPORT_CODE}
import socket
from trimtab.probes.forking import serve_forks
serve_forks(socket.socket(fileno=int(sys.argv[3])), module.main)
"""


class CannotFork(Exception):
    """No child could be had of the server: it is gone, or the system refused."""


class ForkServer:
    """A process that imports `module` once and forks children that call its `main`.

    It is started by the first of them, in whose environment and current folder the others are too,
    and ends with `close`, or with this process. One child at a time: each is waited for before the
    next is started.
    """

    def __init__(self, module: str) -> None:
        self.module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    @staticmethod
    def can_serve(device: str) -> bool:
        """Whether processes that work on the device can be forked here, and measured as others.

        On Linux, and for the CPU: macOS's libraries do not take a fork kindly, and what CUDA's
        driver holds does not survive one.
        """
        return sys.platform == "linux" and device == "cpu" and are_pages_told()

    def start(self, rows: IO[bytes], complaints: IO[bytes]) -> tuple[ForkedProcess, int]:
        """A child, and the number that the rows' descriptor has in it.

        Its stderr is `complaints`. Raises CannotFork.
        """
        if not self.is_alive:
            self.close()
            self._begin()
        stdin, requests = os.pipe()
        try:
            answers, stdout = os.pipe()
        except OSError:
            os.close(stdin)
            os.close(requests)
            raise
        try:
            theirs = [stdin, stdout, complaints.fileno(), rows.fileno()]
            pid, rows_fd = self._asked(FORK, STARTED, theirs)
        except BaseException:
            os.close(requests)
            os.close(answers)
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        return ForkedProcess(self, pid, requests, answers), rows_fd

    def exit_status(self) -> int:
        """Of the child, once it has ended; negative where a signal ended it."""
        with suppress(CannotFork):
            return self._asked(WAIT, ENDED)[0]
        # The child ends with the server.
        return -signal.SIGKILL

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End the process, and a child with it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(TIMEOUT_S)
        self._connection = ours
        arguments = [json.dumps(sys.path), self.module, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _SERVE_CODE, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def _asked(self, what: bytes, kind: bytes, descriptors: Sequence[int] = ()) -> tuple[int, int]:
        """The two numbers of a reply of the kind. Raises CannotFork for another one, or none.

        An answer that comes late would be taken for the next one's: whatever goes wrong ends the
        server.
        """
        try:
            if self._connection is None:
                raise CannotFork("the server is gone")
            socket.send_fds(self._connection, [what], descriptors)
            reply, first, second = REPLY.unpack(self._received(REPLY.size))
            if reply != kind:
                raise CannotFork(os.strerror(first))
        except (OSError, CannotFork) as error:
            self.close()
            raise CannotFork(str(error)) from error
        except BaseException:
            self.close()
            raise
        return first, second

    def _received(self, size: int) -> bytes:
        assert self._connection is not None
        received = b""
        while len(received) < size:
            piece = self._connection.recv(size - len(received))
            if not piece:
                raise CannotFork("the server is gone")
            received += piece
        return received


class ForkedProcess:
    """A child of the server's, with as much of `subprocess.Popen` as asking it takes."""

    def __init__(self, server: ForkServer, pid: int, requests: int, answers: int) -> None:
        self.stdin: IO[bytes] = os.fdopen(requests, "wb")
        self.stdout: IO[bytes] = os.fdopen(answers, "rb")
        self._server, self._pid = server, pid
        self._status: int | None = None

    def kill(self) -> None:
        # Its number is another process's only after its status was asked for, or with the server.
        if self._status is None and self._server.is_alive:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> int:
        if self._status is None:
            self._status = self._server.exit_status()
        return self._status
