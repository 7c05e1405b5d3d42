"""Measuring processes that are forked: the same answers, the same memory, no death that spreads."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.batches import ragged_rows
from support.children import child_environment

from trimtab.errors import ConfigError
from trimtab.probes import fork_server
from trimtab.probes.client import ProbeDied, asked
from trimtab.probes.fork_server import ForkServer

CHILD = "support.measuring_child"
MIB = 2**20
ASKING = """
import sys
from support.batches import ragged_rows
from trimtab.probes.client import asked
from trimtab.probes.fork_server import ForkServer
request = {"question": "silence", "settings": {"device": "cpu"}}
with asked(request, ragged_rows((3,)), server=ForkServer(sys.argv[1])) as answers:
    told = next(answers)
    print(told["pid"], told["parent"], flush=True)
    next(answers)
"""

pytestmark = pytest.mark.skipif(not ForkServer.can_serve("cpu"), reason="forks on Linux alone")


@pytest.fixture(scope="module")
def shared() -> Iterator[ForkServer]:
    with ForkServer(CHILD) as server:
        yield server


@pytest.fixture
def server(shared: ForkServer) -> Iterator[ForkServer]:
    """Nothing of a question is left: no child, no descriptor."""
    list(answers_of(shared, "itself"))
    gc.collect()
    num_descriptors = psutil.Process().num_fds()
    others = psutil.Process().children(recursive=True)
    yield shared
    left = psutil.Process().children(recursive=True)
    assert len(left) <= len(others)
    assert psutil.Process().num_fds() <= num_descriptors


def request_for(question: str) -> dict[str, Any]:
    return {"question": question, "settings": {"device": "cpu"}}


def answers_of(server: ForkServer, question: str, **arguments: Any) -> list[Any]:
    with asked(request_for(question), ragged_rows((3, 4)), server=server, **arguments) as answers:
        return list(answers)


def test_every_question_has_a_process_of_its_own_of_one_that_stays(server: ForkServer) -> None:
    (first,) = answers_of(server, "itself")
    (second,) = answers_of(server, "itself")
    assert first["pid"] != second["pid"]
    assert first["parent"] == second["parent"]
    assert first["parent"] != os.getpid()
    assert first["lengths"] == [3, 4]


def test_libraries_count_as_its_own_memory_from_the_start(server: ForkServer) -> None:
    """What it measures is what it holds more than at its start."""
    (told,) = answers_of(server, "memory")
    assert told["own"] == pytest.approx(told["parents"], abs=4 * MIB)


def test_signals_to_the_group_end_neither(server: ForkServer) -> None:
    with asked(request_for("silence"), ragged_rows((3,)), server=server) as answers:
        told = next(answers)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(told["pid"], number)
            os.kill(told["parent"], number)
        assert psutil.Process(told["pid"]).is_running()
    (later,) = answers_of(server, "itself")
    assert later["parent"] == told["parent"]


def test_its_death_is_told_and_the_next_one_lives(server: ForkServer) -> None:
    with asked(request_for("death"), ragged_rows((3,)), server=server) as answers:
        assert next(answers) == {"is": "alive"}
        with pytest.raises(ProbeDied, match="it was killed, as systems do") as died:
            next(answers)
    assert died.value.is_deadly
    assert answers_of(server, "itself")


def test_what_it_says_when_it_ends_is_told(server: ForkServer) -> None:
    with pytest.raises(ProbeDied, match=r"it ended with status 1: SystemExit: no room"):
        answers_of(server, "exit")


def test_silence_is_told_and_ended(server: ForkServer) -> None:
    with (
        pytest.raises(ProbeDied, match="no answer within"),
        asked(request_for("silence"), ragged_rows((3,)), server=server, timeout_s=1) as answers,
    ):
        pid = next(answers)["pid"]
        next(answers)
    assert not psutil.pid_exists(pid)


def test_what_a_user_can_mend_comes_through_whole(server: ForkServer) -> None:
    with pytest.raises(ProbeDied, match="a value is wrong") as died:
        answers_of(server, "error")
    assert isinstance(died.value.user_error, ConfigError)


def test_one_that_is_left_midway_is_gone(server: ForkServer) -> None:
    with asked(request_for("silence"), ragged_rows((3,)), server=server) as answers:
        pid = next(answers)["pid"]
    assert not psutil.pid_exists(pid)


def test_where_the_server_dies_its_child_does_and_there_is_another(server: ForkServer) -> None:
    with (
        pytest.raises(ProbeDied, match="it was killed"),
        asked(request_for("silence"), ragged_rows((3,)), server=server) as answers,
    ):
        told = next(answers)
        os.kill(told["parent"], signal.SIGKILL)
        next(answers)
    assert_ended([told["pid"], told["parent"]])
    (later,) = answers_of(server, "itself")
    assert later["parent"] != told["parent"]


def test_closed_it_begins_anew(server: ForkServer) -> None:
    (first,) = answers_of(server, "itself")
    server.close()
    assert_ended([first["parent"]])
    (second,) = answers_of(server, "itself")
    assert second["parent"] != first["parent"]


def test_where_it_cannot_fork_the_process_imports_by_itself(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server, "_SERVE_CODE", "raise SystemExit(1)")
    server.close()
    (told,) = answers_of(server, "itself")
    assert told["parent"] == os.getpid()


def test_both_end_with_the_process_that_asks(tmp_path: Path) -> None:
    asking = subprocess.Popen(
        [sys.executable, "-c", ASKING, CHILD],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=child_environment(),
    )
    assert asking.stdout is not None
    pids = [int(pid) for pid in asking.stdout.readline().split()]
    assert len(pids) == 2
    asking.kill()
    asking.wait()
    asking.stdout.close()
    assert_ended(pids)


def assert_ended(pids: list[int]) -> None:
    """Within 30 s; who is to reap an orphan may take its time."""
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in pids)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
