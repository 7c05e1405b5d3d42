"""Runs that come to a sudden end: a server that has loaded everything forks a process for each.

`DyingRuns` is its other end. The server makes a plan when it is given a configuration; each order
after that trains or resumes in a fork of its own, which is killed at a numbered point on the disk
(`kill_points`), after a time, or struck by a `Blow` after an update. A run with numbered points
has a clock that ticks alike each time, so that equal runs write equal bytes.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from support.children import child_environment

Way = Literal["SIGTERM", "SIGINT", "SIGKILL", "crash", "SIGINT twice"]


@dataclass(frozen=True)
class Blow:
    """What happens to the run once an update is recorded."""

    way: Way
    update: int


@dataclass(frozen=True)
class Ended:
    """How a run's process ended: its exit status (-9: killed), and the points that it came by.

    `states` are digests of its folder at the points, where they were asked for. `error` is what it
    told as its reason where it ended by itself with one. A process that was killed tells nothing.
    """

    status: int
    labels: tuple[str, ...]
    states: tuple[str, ...]
    error: str


@dataclass(frozen=True)
class Order:
    """What the server is to do with the run at `root`."""

    verb: Literal["train", "resume"]
    root: str
    kill_at: int | None = None
    kill_after_s: float | None = None
    notes_states: bool = False
    blow: Mapping[str, Any] | None = None
    num_threads: int = 1
    allow_changed: bool = False


class DyingRuns:
    """Asks the server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def plan(self, config: Mapping[str, Any]) -> None:
        """Plan what is trained from here on."""
        self._ask({"config": config})

    def train(self, root: Path, *, blow: Blow | None = None, **options: Any) -> Ended:
        struck = None if blow is None else asdict(blow)
        return self._ended(Order("train", str(root), blow=struck, **options))

    def resume(self, root: Path, *, blow: Blow | None = None, **options: Any) -> Ended:
        struck = None if blow is None else asdict(blow)
        return self._ended(Order("resume", str(root), blow=struck, **options))

    def _ended(self, order: Order) -> Ended:
        answer = self._ask(asdict(order))
        return Ended(
            answer["status"], tuple(answer["labels"]), tuple(answer["states"]), answer["error"]
        )

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server is gone")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def dying_runs() -> Iterator[DyingRuns]:
    """A server, which ends with the context."""
    with served("support.dying_runs") as process:
        yield DyingRuns(process)


@contextmanager
def served(module: str) -> Iterator[subprocess.Popen[str]]:
    """The module as a process that takes orders on stdin, until the context ends."""
    with subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def main() -> None:
    """Serve: one order a line on stdin, one answer a line on stdout."""
    import torch

    from trimtab.engine.observer import Silent
    from trimtab.workflow.planning import plan_run, resolve_config

    torch.set_num_threads(1)
    plan: Any = None
    for line in sys.stdin:
        order = json.loads(line)
        if "config" in order:
            is_first = plan is None
            plan = plan_run(resolve_config(order["config"]), Silent()).plan
            if is_first:
                _load_what_is_loaded_late(plan)
            answer: dict[str, Any] = {}
        else:
            answer = _in_a_fork(Order(**order), _planned(plan, order["root"]))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _planned(plan: Any, root: str) -> Any:
    decisions = tuple(
        replace(each, value=root) if each.name == "output_dir" else each for each in plan.decisions
    )
    return replace(plan, decisions=decisions)


def _load_what_is_loaded_late(plan: Any) -> None:
    import trimtab

    with tempfile.TemporaryDirectory() as folder:
        trimtab.train(_planned(plan, str(Path(folder) / "run")))
    gc.collect()
    gc.freeze()


def _in_a_fork(order: Order, plan: Any) -> dict[str, Any]:
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        _carry_out(order, plan, telling)
    os.close(telling)
    with os.fdopen(told) as stream:
        wait_s = order.kill_after_s
        if wait_s is not None and not select.select([stream], [], [], wait_s)[0]:
            os.kill(child, signal.SIGKILL)
        record = json.loads(stream.read() or '{"labels": [], "states": [], "error": ""}')
    _, status = os.waitpid(child, 0)
    return {"status": os.waitstatus_to_exitcode(status), **record}


def _carry_out(order: Order, plan: Any, telling: int) -> None:
    import torch

    import trimtab
    from support.kill_points import KillPoints

    torch.set_num_threads(order.num_threads)
    points = KillPoints(Path(order.root), order.kill_at, notes_states=order.notes_states)
    if order.kill_after_s is None:
        points.install()
        _stop_clocks()
    status, error = 0, ""
    try:
        observer = _striking(order.blow)
        if order.verb == "train":
            trimtab.train(plan, observer=observer)
        else:
            trimtab.resume(order.root, allow_changed=order.allow_changed, observer=observer)
    except trimtab.TrimtabError as failure:
        status, error = failure.exit_code, str(failure)
    except BaseException as failure:
        status, error = 1, f"{type(failure).__name__}: {failure}"
    record = {"labels": points.labels, "states": points.states, "error": error}
    with os.fdopen(telling, "w") as stream:
        stream.write(json.dumps(record))
    os._exit(status)


def _striking(blow: Mapping[str, Any] | None) -> Any:
    from trimtab.engine.observer import Silent
    from trimtab.runs.records import UpdateRecord

    class Striking(Silent):
        def updated(self, record: UpdateRecord, num_steps: int) -> None:
            if blow is None or record.step != blow["update"]:
                return
            if blow["way"] == "crash":
                raise ZeroDivisionError("a crash")
            name, _, twice = blow["way"].partition(" ")
            for _ in range(2 if twice else 1):
                signal.raise_signal(signal.Signals[name])

    return Striking()


def _stop_clocks() -> None:
    """Time and names become the same in each run."""
    from datetime import UTC, datetime

    from trimtab.engine import loop
    from trimtab.runs import records
    from trimtab.workflow import session

    class StoppedClock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 1, 31, tzinfo=UTC)

    ticks, names = itertools.count(), itertools.count()
    time.perf_counter = lambda: next(ticks) / 1000
    secrets.token_hex = lambda num_bytes=None: f"{next(names):016x}"
    records.datetime = StoppedClock  # type: ignore[attr-defined]
    for module in (loop, session):
        module.peak_memory_bytes = lambda device: 1 << 20  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
