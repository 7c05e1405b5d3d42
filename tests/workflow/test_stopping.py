"""Signals that stop a run: the first waits for the update's end, and is not counted twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from trimtab.engine.stops import StopRequested
from trimtab.workflow.stopping import STOP_SIGNALS, stop_at_update_end


class Ended(Exception):
    """What a signal does in these tests where nothing of ours takes it."""


def end(*_: object) -> None:
    raise Ended


@pytest.fixture(autouse=True)
def ending_handlers() -> Iterator[None]:
    former = {number: signal.signal(number, end) for number in STOP_SIGNALS}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def test_first_signal_is_remembered_and_the_second_aborts() -> None:
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt), stop_at_update_end(lambda: told.append("!")) as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked() and told == ["!"]
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(Ended):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_stop_that_another_rank_was_asked_for_covers_the_same_request_here(number: int) -> None:
    with pytest.raises(StopRequested), stop_at_update_end(lambda: None):
        raise StopRequested
    os.kill(os.getpid(), number)
    for each in STOP_SIGNALS:
        with pytest.raises(Ended):
            signal.raise_signal(each)


def test_a_stop_that_was_asked_of_this_process_leaves_the_handlers_as_they_were() -> None:
    with pytest.raises(StopRequested), stop_at_update_end(lambda: None):
        signal.raise_signal(signal.SIGTERM)
        raise StopRequested
    with pytest.raises(Ended):
        signal.raise_signal(signal.SIGTERM)
