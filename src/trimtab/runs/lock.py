"""One writer per run folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from trimtab.errors import ConfigError
from trimtab.runs.folder import RunFolder


@contextmanager
def run_lock(run: RunFolder) -> Iterator[None]:
    """Hold the run folder; the system lets go of it when the process ends, however it ends.

    Raises ConfigError where another process holds it.
    """
    with run.lock.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise ConfigError(
                f"the run is being written by process {holder}.",
                where=str(run.root),
                hint="Wait for it, or stop it; then try again.",
            ) from error
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def is_being_written(run: RunFolder) -> bool:
    """Does a process hold the run folder now?"""
    try:
        with run.lock.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
