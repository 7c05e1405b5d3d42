"""Ctrl-C and SIGTERM: stop at the end of the update, save, and say how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from trimtab.engine.stops import StopRequested

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_at_update_end(on_first: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether a stop was asked for.

    The first signal is remembered and `on_first` is told; a second one aborts at once with
    KeyboardInterrupt. Outside the main thread, where Python takes no handlers, nothing is changed.

    Where the stop was asked of another rank, the same request to this one may still be on its way,
    and must not end it while it tells how to go on: the first signal after the stop is ignored.
    """
    asked = threading.Event()
    is_forestalled = False

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        on_first()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    former = {number: signal.signal(number, handle) for number in STOP_SIGNALS}

    def restore(*_: object) -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    try:
        yield asked.is_set
    except StopRequested:
        is_forestalled = not asked.is_set()
        raise
    finally:
        for number, handler in former.items():
            signal.signal(number, restore if is_forestalled else handler)
