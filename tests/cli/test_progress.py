"""Progress on a screen that is gone: nothing is shown any more, and nothing fails."""

from __future__ import annotations

import errno
import io
import os
import sys

import pytest
from rich.console import Console

from trimtab.cli.common import complain
from trimtab.cli.console import Consoles
from trimtab.cli.progress import ConsoleObserver
from trimtab.runs.records import EventRecord


class Lost(io.StringIO):
    """A stream whose other end is gone; nothing of the system's is behind it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def write(self, text: str) -> int:
        raise OSError(self._number, os.strerror(self._number))


of_reader_and_terminal = pytest.mark.parametrize(
    "number", [errno.EPIPE, errno.EIO], ids=["reader", "terminal"]
)


@of_reader_and_terminal
def test_a_run_goes_on_where_its_lines_cannot_be_shown(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(sys, "stderr", Lost(number))
    observer = ConsoleObserver(Consoles().err, lambda plan: None)
    observer.noted("Stopping once this is saved.")
    observer.happened(EventRecord("checkpoint saved", 1, {"folder": "step-000001", "bytes": 1}))
    observer.close()


def test_a_run_goes_on_where_its_bar_cannot_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Lost(errno.EIO)
    monkeypatch.setattr(sys, "stderr", terminal)
    observer = ConsoleObserver(Console(file=terminal, force_terminal=True), lambda plan: None)
    observer.activity("loading the model")
    observer.noted("a note")
    observer.close()


@of_reader_and_terminal
def test_a_complaint_that_cannot_be_shown_is_no_error(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(sys, "stderr", Lost(number))
    complain("Interrupted.")


def test_a_reader_of_results_that_goes_away_still_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Ended(Exception):
        pass

    def end(console: Console) -> None:
        raise Ended

    monkeypatch.setattr(sys, "stdout", Lost(errno.EPIPE))
    monkeypatch.setattr(Console, "on_broken_pipe", end)
    with pytest.raises(Ended):
        Consoles().out.print("a result")
