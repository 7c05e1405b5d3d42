"""One writer per run folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from trimtab.errors import ConfigError
from trimtab.runs.folder import RunFolder

NUM_TRIES = 4
BETWEEN_TRIES_S = 0.02


@contextmanager
def run_lock(run: RunFolder) -> Iterator[None]:
    """Hold the run folder; the system lets go of it when the process ends, however it ends.

    Raises ConfigError where another process holds it, or where the disk has no locks.
    """
    with run.lock.open("a+", encoding="utf-8") as stream:
        try:
            _lock(stream.fileno())
        except BlockingIOError as error:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise ConfigError(
                f"the run is being written by process {holder}.",
                where=str(run.root),
                hint="Wait for it, or stop it; then try again.",
            ) from error
        except OSError as error:
            raise ConfigError(
                f"the run folder cannot be locked: {error.strerror}.",
                where=str(run.root),
                hint="Choose an output_dir on a disk of this machine.",
            ) from error
        with suppress(OSError):
            # Who holds it is told where the disk has room for that.
            os.ftruncate(stream.fileno(), 0)
            os.write(stream.fileno(), str(os.getpid()).encode())
        yield


def _lock(descriptor: int) -> None:
    """Those who only ask, by `is_being_written`, hold the file for an instant."""
    for _ in range(NUM_TRIES - 1):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(BETWEEN_TRIES_S)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
