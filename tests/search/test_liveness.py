from __future__ import annotations

import threading
from typing import Any

import optuna
import pytest

from trimtab.search import liveness
from trimtab.search.liveness import BEAT, WORKER, Watch, beating, this_process


def trial(worker: Any = None, beat: int | None = None) -> optuna.trial.FrozenTrial:
    attrs = {WORKER: worker} if beat is None else {WORKER: worker, BEAT: beat}
    return optuna.create_trial(value=1.0, user_attrs={} if worker is None else attrs)


def test_a_process_of_this_machine_is_looked_up() -> None:
    here = this_process()
    assert not Watch().is_alive(trial(here)), "it is asked about before it has begun"
    assert not Watch().is_alive(trial({**here, "pid": 2**22 + 1}))
    assert Watch().is_alive(trial({**here, "pid": 1, "started": _started(1)}))
    assert not Watch().is_alive(trial({**here, "pid": 1, "started": 0.0}))


def test_another_machines_is_alive_until_it_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    watch, elsewhere = Watch(), {"host": "elsewhere", "pid": 1, "started": 1.0}
    for beat in range(3):
        assert watch.is_alive(trial(elsewhere, beat))
        now[0] += liveness.SILENT_S - 1
        assert watch.is_alive(trial(elsewhere, beat))
        now[0] += 2
    assert not watch.is_alive(trial(elsewhere, 2))
    # One that has only just begun has not said yet whose it is.
    assert Watch().is_alive(trial(None))


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


def _started(pid: int) -> float:
    import psutil

    return psutil.Process(pid).create_time()
