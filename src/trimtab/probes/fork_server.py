"""Measuring processes that begin with everything imported, most of their time otherwise."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import IO, Any, Final

from trimtab.probes.forking import ENDED, STARTED

START_TIMEOUT_S: Final = 300.0
START: Final = """
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
_SERVE: Final = """
import socket
from trimtab.probes.forking import serve_forks
serve_forks(socket.socket(fileno=int(sys.argv[3])), module.main)
"""


class ForkServerEnded(Exception):
    """The process that forks is gone; `status` is its exit status, negative for a signal."""

    def __init__(self, status: int) -> None:
        super().__init__(f"it ended with status {status}")
        self.status = status


class ForkServer:
    """A process that imports `module` once and forks, for each question, one that calls its `main`.

    It is started by the first question and ends with `close`, or with this process. One child at a
    time: each must have been waited for before the next is started. Only on Linux, and only for
    work on the CPU: what another device's driver holds does not outlive a fork.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    @staticmethod
    def can_serve(device: str) -> bool:
        """Whether processes that work on the device can be forked here."""
        return sys.platform == "linux" and device == "cpu"

    def start(self, rows: IO[bytes], complaints: IO[bytes]) -> tuple[ForkedProcess, int]:
        """A child, and the number that the rows' descriptor has in it.

        Raises ForkServerEnded where the process that forks could not start, with what it said in
        `complaints`, and TimeoutError where it did not within 300 s.
        """
        stdin, requests = os.pipe()
        answers, stdout = os.pipe()
        try:
            theirs = [stdin, stdout, complaints.fileno(), rows.fileno()]
            pid, rows_fd = STARTED.unpack(self._asked(theirs, complaints))
        except BaseException:
            os.close(requests)
            os.close(answers)
            # An answer that comes late would be taken for the next one's.
            self.close()
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        return ForkedProcess(self, pid, requests, answers), rows_fd

    def _asked(self, descriptors: list[int], complaints: IO[bytes]) -> bytes:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._begin(complaints)
        connection = self._connection
        assert connection is not None
        with suppress(BrokenPipeError):
            socket.send_fds(connection, [b"f"], descriptors)
        return self._received(STARTED.size)

    def _begin(self, complaints: IO[bytes]) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(START_TIMEOUT_S)
        code = START + _SERVE
        arguments = [json.dumps(sys.path), self._module, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", code, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=complaints,
                stderr=complaints,
                pass_fds=[theirs.fileno()],
            )
        self._connection = ours

    def _received(self, size: int) -> bytes:
        assert self._connection is not None and self._process is not None
        received = b""
        while len(received) < size:
            try:
                piece = self._connection.recv(size - len(received))
            except ConnectionError:
                piece = b""
            if not piece:
                raise ForkServerEnded(self._process.wait())
            received += piece
        return received

    def exit_status(self) -> int:
        """Of the child, once it has ended; negative where a signal ended it."""
        if self._connection is None:
            return -signal.SIGKILL
        try:
            self._connection.sendall(b"w")
            (status,) = ENDED.unpack(self._received(ENDED.size))
        except (ConnectionError, ForkServerEnded):
            return -signal.SIGKILL
        return int(status)

    def close(self) -> None:
        """End the process."""
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


class ForkedProcess:
    """A child of the server's, with as much of `subprocess.Popen` as asking it takes."""

    def __init__(self, server: ForkServer, pid: int, requests: int, answers: int) -> None:
        self.stdin: IO[bytes] = os.fdopen(requests, "wb")
        self.stdout: IO[bytes] = os.fdopen(answers, "rb")
        self._server, self._pid = server, pid
        self._status: int | None = None

    def kill(self) -> None:
        if self._status is None:
            # Until its status is asked for its number is not given to another process.
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> int:
        if self._status is None:
            self._status = self._server.exit_status()
        return self._status
