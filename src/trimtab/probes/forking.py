"""The process that measuring processes are forked from: it has imported what they take.

`fork_server.ForkServer` starts it and asks it. On its socket come four descriptors, those of a
child's stdin, stdout, stderr and rows; back go the child's pid and the number that its rows have.
A byte asks for the child's exit status, for which it is not reaped before. The end of the socket
is the end of both.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import struct
import sys
import traceback
import warnings
from collections.abc import Callable

from trimtab.probes.mapped_pages import resident_file_pages, touch

STARTED = struct.Struct("!ii")
"""pid, descriptor of the rows."""
ENDED = struct.Struct("!i")
"""Exit status, negative where a signal ended it."""


def serve_forks(connection: socket.socket, answer: Callable[[], None]) -> None:
    """Fork a child that calls `answer` for each set of descriptors, until the socket ends."""
    pages = resident_file_pages()
    # What was imported stays: a collection in a child would only copy the pages that it marks.
    gc.collect()
    gc.freeze()
    while True:
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 4)
        if not descriptors:
            return
        with warnings.catch_warnings():
            # numpy's OpenBLAS keeps a thread, which it takes care of where a process forks.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            connection.close()
            _become(descriptors)
            touch(pages)
            _end_with(answer)
        connection.sendall(STARTED.pack(pid, descriptors[3]))
        for each in descriptors:
            os.close(each)
        if not connection.recv(1):
            os.kill(pid, signal.SIGKILL)
            return
        _, status = os.waitpid(pid, 0)
        connection.sendall(ENDED.pack(os.waitstatus_to_exitcode(status)))


def _become(descriptors: list[int]) -> None:
    """The first three as stdin, stdout and stderr."""
    for number, each in enumerate(descriptors[:3]):
        os.dup2(each, number)
        os.close(each)


def _end_with(answer: Callable[[], None]) -> None:
    """As a process ends that has nothing else to do; nothing of the parent's is tidied up."""
    status = 1
    try:
        answer()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
