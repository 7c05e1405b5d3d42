"""Every way out of a measuring process: an answer, an error, death, silence, Ctrl-C."""

from __future__ import annotations

import gc
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.batches import ragged_rows

from trimtab.errors import ConfigError
from trimtab.probes import client
from trimtab.probes.client import ProbeDied, asked

CHILD = "support.measuring_child"
READ = "import json, os, signal, sys, time; request = json.loads(sys.stdin.readline()); "


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Any:
    def runs(code: str) -> None:
        monkeypatch.setattr(client, "_START", READ + code)

    return runs


def answers_of(**arguments: Any) -> list[Any]:
    with asked({"question": "any"}, ragged_rows((3, 4)), **arguments) as answers:
        return list(answers)


def _open_descriptors() -> int:
    return psutil.Process().num_fds()


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gc.collect()
    num_descriptors = _open_descriptors()
    yield
    assert psutil.Process().children() == []
    assert _open_descriptors() == num_descriptors
    assert list(tmp_path.iterdir()) == []


def test_answers_come_until_it_is_done(child: Any) -> None:
    child('print(json.dumps({"got": request["question"]})); print(json.dumps({"done": True}))')
    assert answers_of() == [{"got": "any"}]


def test_the_rows_are_handed_over(child: Any) -> None:
    child(
        "from safetensors.numpy import load; "
        'rows = load(os.fdopen(request["rows_fd"], "rb").read()); '
        'print(json.dumps({"lengths": rows["lengths"].tolist()})); '
        'print(json.dumps({"done": True}))'
    )
    assert answers_of() == [{"lengths": [3, 4]}]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "it was killed, as systems do"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "it ended by SIGSEGV"),
        ("sys.exit('no room')", "it ended with status 1: no room"),
        ("pass", "it ended with status 0"),
        ("time.sleep(60)", "it gave no answer within 0.5 s"),
    ],
)
def test_death_and_silence_are_told(code: str, reason: str, child: Any) -> None:
    child(code)
    with pytest.raises(ProbeDied, match=reason) as died:
        answers_of(timeout_s=0.5 if "sleep" in code else 60)
    assert died.value.is_deadly


def test_a_process_that_ends_at_once_is_told_like_any_death(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = subprocess.Popen

    def ended(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = start(*arguments, **options)
        process.wait()
        return process

    monkeypatch.setattr(client, "_START", "raise SystemExit('no libraries')")
    monkeypatch.setattr(subprocess, "Popen", ended)
    with pytest.raises(ProbeDied, match="status 1: no libraries"):
        answers_of()


@pytest.mark.parametrize("is_deadly", [True, False])
def test_an_error_that_it_tells_is_passed_on(is_deadly: bool, child: Any) -> None:
    child(f'print(json.dumps({{"error": "it cannot", "is_out_of_memory": {is_deadly}}}))')
    with pytest.raises(ProbeDied, match="it cannot") as died:
        answers_of()
    assert died.value.is_deadly is is_deadly


def test_what_came_before_its_death_is_kept(child: Any) -> None:
    child('print(json.dumps({"n": 1}), flush=True); os.kill(os.getpid(), signal.SIGKILL)')
    with asked({}, ragged_rows((3,))) as answers:
        assert next(answers) == {"n": 1}
        with pytest.raises(ProbeDied):
            next(answers)


def test_ctrl_c_ends_it_too(child: Any) -> None:
    child("time.sleep(600)")
    with pytest.raises(KeyboardInterrupt), asked({}, ragged_rows((3,))) as answers:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        former = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            next(answers)
        finally:
            signal.signal(signal.SIGALRM, former)


def test_signals_to_the_group_do_not_end_it() -> None:
    """A manager's stop reaches all processes; a measurement that dies of it is no finding."""
    with asked({"question": "signals"}, ragged_rows((3,)), module=CHILD) as answers:
        assert list(answers) == [{"ignored": [True, True]}]


def test_what_a_user_can_mend_comes_through_whole() -> None:
    with (
        pytest.raises(ProbeDied, match="a value is wrong") as died,
        asked({"question": "error"}, ragged_rows((3,)), module=CHILD) as answers,
    ):
        list(answers)
    assert not died.value.is_deadly
    assert isinstance(died.value.user_error, ConfigError)
    assert str(died.value.user_error) == "file:3: a value is wrong. Take another."
