"""Which trials that have begun are still being run, and by whom."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psutil

WORKER = "worker"
BEAT = "beat"
BEAT_S = 20.0
SILENT_S = 300.0
"""A worker that nobody here can look at is taken for dead when it has been silent for so long."""


def this_process() -> dict[str, Any]:
    started = psutil.Process().create_time()
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started}


class Watch:
    """What was seen of other machines' trials, by this process's own clock."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[object, float]] = {}

    def is_alive(self, number: int, attrs: Mapping[str, Any]) -> bool:
        """A process of this machine is looked up; another is alive while its beats change.

        `attrs` are what the trial of that number says of its worker.
        """
        worker = attrs.get(WORKER)
        if worker is not None and worker["host"] == socket.gethostname():
            return worker != this_process() and _is_running(worker["pid"], worker["started"])
        mark = (worker, attrs.get(BEAT))
        seen = self._seen.get(number)
        if seen is None or seen[0] != mark:
            self._seen[number] = mark, time.monotonic()
            return True
        return time.monotonic() - seen[1] < SILENT_S


@contextmanager
def beating(beat: Callable[[int, int], None], numbers: Collection[int]) -> Iterator[None]:
    """Meanwhile `beat` is called every 20 s with each of the numbers, and how often so far.

    A beat that cannot be told is left out: the next one will do.
    """
    is_over = threading.Event()

    def tell() -> None:
        count = 0
        while not is_over.wait(BEAT_S):
            count += 1
            with suppress(Exception):
                for number in tuple(numbers):
                    beat(number, count)

    thread = threading.Thread(target=tell, name="trimtab-beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _is_running(pid: int, started: float) -> bool:
    try:
        return bool(psutil.Process(pid).create_time() == started)
    except psutil.NoSuchProcess:
        return False
