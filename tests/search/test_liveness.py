from __future__ import annotations

import threading
from typing import Any

import psutil
import pytest

from trimtab.search import liveness
from trimtab.search.liveness import BEAT, WORKER, Watch, beating, this_process


def is_alive(watch: Watch, worker: Any, beat: int = 0) -> bool:
    return watch.is_alive(0, {WORKER: worker, BEAT: beat})


def test_a_process_of_this_machine_is_looked_up() -> None:
    here = this_process()
    first = {**here, "pid": 1, "started": psutil.Process(1).create_time()}
    assert not is_alive(Watch(), here), "this process has not begun, so it has left it"
    assert not is_alive(Watch(), {**here, "pid": 2**22 + 1})
    assert is_alive(Watch(), first)
    assert not is_alive(Watch(), {**first, "started": 0.0})


def test_another_machines_is_alive_until_it_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    watch, elsewhere = Watch(), {"host": "elsewhere", "pid": 1, "started": 1.0}
    for beat in range(3):
        assert is_alive(watch, elsewhere, beat)
        now[0] += liveness.SILENT_S - 1
        assert is_alive(watch, elsewhere, beat)
        now[0] += 2
    assert not is_alive(watch, elsewhere, 2)
    # One that has only just begun has not said yet whose it is.
    assert Watch().is_alive(0, {})


def test_beats_go_on_where_one_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "BEAT_S", 0.01)
    told, enough = [], threading.Event()

    def beat(number: int, count: int) -> None:
        if count == 1:
            raise OSError
        told.append((number, count))
        if count == 3:
            enough.set()

    with beating(beat, {7}):
        assert enough.wait(30)
    assert told[:2] == [(7, 2), (7, 3)]
    assert not any(thread.name == "trimtab-beat" for thread in threading.enumerate())
