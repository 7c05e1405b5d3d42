"""Runs that are killed: a server that has loaded everything forks a process for each of them.

`DyingRuns` is its other end. The server makes one plan; each order trains or resumes it in a fork
of its own, which is killed at a numbered point on the disk (`kill_points`), or after a time. A run
with numbered points has a clock that ticks alike each time, so that equal runs write equal bytes.
"""

from __future__ import annotations

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


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


class DyingRuns:
    """Asks the server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def train(
        self,
        root: Path,
        *,
        kill_at: int | None = None,
        kill_after_s: float | None = None,
        notes_states: bool = False,
    ) -> Ended:
        return self._ask("train", root, kill_at, kill_after_s, notes_states)

    def resume(
        self, root: Path, *, kill_at: int | None = None, kill_after_s: float | None = None
    ) -> Ended:
        return self._ask("resume", root, kill_at, kill_after_s, False)

    def _ask(
        self,
        verb: str,
        root: Path,
        kill_at: int | None,
        kill_after_s: float | None,
        notes_states: bool,
    ) -> Ended:
        order = {
            "verb": verb,
            "root": str(root),
            "kill_at": kill_at,
            "kill_after_s": kill_after_s,
            "notes_states": notes_states,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server is gone")
        answer = json.loads(line)
        return Ended(
            answer["status"], tuple(answer["labels"]), tuple(answer["states"]), answer["error"]
        )


@contextmanager
def dying_runs(config: Mapping[str, Any]) -> Iterator[DyingRuns]:
    """A server for runs of the configuration; it ends with the context."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    paths = [str(TESTS), *sys.path]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    with subprocess.Popen(
        [sys.executable, "-m", "support.dying_runs", json.dumps(config)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield DyingRuns(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def main() -> None:
    """Serve: one order a line on stdin, one answer a line on stdout."""
    import torch

    import trimtab
    from trimtab.engine.observer import Silent
    from trimtab.planning.plan import Plan
    from trimtab.workflow.planning import plan_run, resolve_config

    torch.set_num_threads(1)
    plan = plan_run(resolve_config(json.loads(sys.argv[1])), Silent()).plan

    def planned(root: str) -> Plan:
        decisions = tuple(
            replace(each, value=root) if each.name == "output_dir" else each
            for each in plan.decisions
        )
        return replace(plan, decisions=decisions)

    # A whole run loads what is loaded late, so that forks need not.
    with tempfile.TemporaryDirectory() as folder:
        trimtab.train(planned(str(Path(folder) / "run")))
    for line in sys.stdin:
        order = json.loads(line)
        told, telling = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(told)
            _carry_out(order, planned(order["root"]), telling)
        os.close(telling)
        with os.fdopen(told) as stream:
            wait_s = order["kill_after_s"]
            if wait_s is not None and not select.select([stream], [], [], wait_s)[0]:
                os.kill(child, signal.SIGKILL)
            record = json.loads(stream.read() or '{"labels": [], "states": [], "error": ""}')
        _, status = os.waitpid(child, 0)
        answer = {"status": os.waitstatus_to_exitcode(status), **record}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _carry_out(order: Mapping[str, Any], plan: Any, telling: int) -> None:
    import trimtab
    from support.kill_points import KillPoints

    points = KillPoints(Path(order["root"]), order["kill_at"], notes_states=order["notes_states"])
    if order["kill_after_s"] is None:
        points.install()
        _stop_clocks()
    status, error = 0, ""
    try:
        if order["verb"] == "train":
            trimtab.train(plan)
        else:
            trimtab.resume(order["root"])
    except trimtab.TrimtabError as failure:
        status, error = failure.exit_code, str(failure)
    except BaseException as failure:
        status, error = 1, f"{type(failure).__name__}: {failure}"
    record = {"labels": points.labels, "states": points.states, "error": error}
    with os.fdopen(telling, "w") as stream:
        stream.write(json.dumps(record))
    os._exit(status)


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
