"""The fork server's own side: a process that has imported what measuring takes, and forks.

`fork_server.ForkServer` starts it. With the byte FORK come four descriptors: a child's stdin,
stdout and stderr, and its rows. Back go STARTED, the child's pid and the number that its rows'
descriptor has, or FAILED and the error's number. WAIT asks for the child's exit status, which comes
with ENDED; the child is reaped only then. The end of the socket is the end of both.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import struct
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from trimtab.probes.mapped_pages import resident_file_pages, touch

FORK, WAIT = b"f", b"w"
STARTED, FAILED, ENDED = b"s", b"x", b"e"
REPLY = struct.Struct("!cii")
NUM_DESCRIPTORS = 4
_PR_SET_PDEATHSIG = 1
"""prctl's option for the signal that a parent's death sends (Linux, prctl(2))."""


def serve_forks(connection: socket.socket, answer: Callable[[], None]) -> None:
    """Fork a child that calls `answer` for each FORK, until the socket ends."""
    # Where it is ignored, as some supervisors leave it, there is no exit status to wait for.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pages = resident_file_pages()
    # What was imported stays: a collection in a child would only copy the pages that it marks.
    gc.collect()
    gc.freeze()
    with suppress(ConnectionError):
        while True:
            asked, descriptors, _, _ = socket.recv_fds(connection, 1, NUM_DESCRIPTORS)
            if asked != FORK or len(descriptors) < NUM_DESCRIPTORS:
                return
            if not _forked(connection, descriptors, pages, answer):
                return


def _forked(
    connection: socket.socket,
    descriptors: list[int],
    pages: npt.NDArray[np.uint64],
    answer: Callable[[], None],
) -> bool:
    """One child from its start to its end; False where nobody waits for it any more."""
    sys.stdout.flush()
    sys.stderr.flush()
    server = os.getpid()
    with warnings.catch_warnings():
        # Imports leave one thread, of numpy's OpenBLAS, which minds forks itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            pid = os.fork()
        except OSError as error:
            connection.sendall(REPLY.pack(FAILED, error.errno or 0, 0))
            pid = None
    if pid == 0:
        _be_child(server, connection, descriptors, pages, answer)
    rows_fd = descriptors[-1]
    for each in descriptors:
        os.close(each)
    if pid is None:
        return True
    try:
        connection.sendall(REPLY.pack(STARTED, pid, rows_fd))
        is_waited_for = connection.recv(1) == WAIT
    except ConnectionError:
        is_waited_for = False
    if not is_waited_for:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if is_waited_for:
        connection.sendall(REPLY.pack(ENDED, os.waitstatus_to_exitcode(status), 0))
    return is_waited_for


def _be_child(
    server: int,
    connection: socket.socket,
    descriptors: list[int],
    pages: npt.NDArray[np.uint64],
    answer: Callable[[], None],
) -> None:
    """Answer and end, without tidying up what is the server's."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(1)
        connection.close()
        for number, each in enumerate(descriptors[:3]):
            os.dup2(each, number)
            os.close(each)
        touch(pages)
        answer()
        sys.stdout.flush()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
