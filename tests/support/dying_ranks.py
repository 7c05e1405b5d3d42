"""Runs of several ranks that come to a sudden end: forked from a process that has loaded all.

`DyingRanks` is the other end of the server, as in `support.dying_runs`, whose plans it makes for so
many ranks. The server does what a launcher does: where one process ends with an error or is killed,
the others are sent SIGTERM, and SIGKILL 30 seconds later.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from support.dying_runs import _load_what_is_loaded_late, _planned, served
from support.ends import differences, lost

GRACE_S = 30.0
POLL_S = 0.005


@dataclass(frozen=True)
class RanksOrder:
    """A run at `root`; rank `victim` is sent a signal after `after_s`, or no one is.

    With `at_update` the signal comes once so many updates are recorded, however long that takes.
    `forwards`: whether the others are told to end, as a launcher does, once one is gone.
    """

    verb: Literal["train", "resume"]
    root: str
    num_ranks: int = 2
    victim: int | None = None
    after_s: float = 0.0
    at_update: int | None = None
    signal: int = int(signal.SIGKILL)
    forwards: bool = True


@dataclass(frozen=True)
class RanksEnded:
    """statuses: exit status by rank (-9: killed). errors: what each told, empty where nothing;
    of a crash in native code the stack of each thread.

    ended_s: from the signal, or from the start where there was none, to the end of the last rank.
    """

    statuses: tuple[int, ...]
    errors: tuple[str, ...]
    ended_s: float


class DyingRanks:
    """Asks the server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def plan(self, config: Mapping[str, Any], num_ranks: int = 2) -> None:
        """Plan what is trained from here on."""
        self._ask({"config": config, "num_ranks": num_ranks})

    def run(self, verb: Literal["train", "resume"], root: Path, **options: Any) -> RanksEnded:
        answer = self._ask(asdict(RanksOrder(verb, str(root), **options)))
        return RanksEnded(tuple(answer["statuses"]), tuple(answer["errors"]), answer["ended_s"])

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
def dying_ranks() -> Iterator[DyingRanks]:
    """A server, which ends with the context."""
    with served("support.dying_ranks") as process:
        yield DyingRanks(process)


def main() -> None:
    import torch

    from trimtab.engine.observer import Silent
    from trimtab.workflow.planning import plan_run, resolve_config

    torch.set_num_threads(1)
    plan: Any = None
    for line in sys.stdin:
        order = json.loads(line)
        if "config" in order:
            resolved = resolve_config(order["config"])
            if plan is None:
                _load_what_is_loaded_late(plan_run(resolved, Silent()).plan)
                gc.freeze()
            plan = plan_run(resolved, Silent(), num_ranks=order["num_ranks"]).plan
            answer: dict[str, Any] = {}
        else:
            answer = _carried_out(RanksOrder(**order), _planned(plan, order["root"]))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _carried_out(order: RanksOrder, plan: Any) -> dict[str, Any]:
    port = _free_port()
    started = time.monotonic()
    pipes, children = [], []
    for rank in range(order.num_ranks):
        told, telling = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(told)
            _be_rank(rank, port, order, plan, telling)
        os.close(telling)
        pipes.append(told)
        children.append(child)
    statuses, ended_s = _watched(order, children, started)
    errors = []
    for told in pipes:
        with os.fdopen(told) as stream:
            errors.append(stream.read())
    return {"statuses": statuses, "errors": errors, "ended_s": ended_s}


def _watched(order: RanksOrder, children: list[int], started: float) -> tuple[list[int], float]:
    """Exit statuses, and the seconds from the signal to the last end."""
    statuses: dict[int, int] = {}
    struck_at = None if order.victim is not None else started
    told_at: float | None = None
    while len(statuses) < len(children):
        now = time.monotonic()
        if struck_at is None and _is_time(order, now - started):
            assert order.victim is not None
            if order.victim not in statuses:
                os.kill(children[order.victim], order.signal)
            struck_at = now
        for rank, child in enumerate(children):
            if rank in statuses:
                continue
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                statuses[rank] = os.waitstatus_to_exitcode(status)
        alive = [child for rank, child in enumerate(children) if rank not in statuses]
        if order.forwards and told_at is None and any(statuses.values()):
            told_at = now
            _tell(alive, signal.SIGTERM)
        if told_at is not None and now - told_at > GRACE_S:
            _tell(alive, signal.SIGKILL)
        time.sleep(POLL_S)
    ended_s = time.monotonic() - (started if struck_at is None else struck_at)
    return [statuses[rank] for rank in range(len(children))], ended_s


def _is_time(order: RanksOrder, elapsed_s: float) -> bool:
    if order.at_update is None:
        return elapsed_s >= order.after_s
    metrics = Path(order.root) / "metrics.jsonl"
    return metrics.exists() and metrics.read_bytes().count(b'"grad_norm"') >= order.at_update


def _tell(children: list[int], number: signal.Signals) -> None:
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _be_rank(rank: int, port: int, order: RanksOrder, plan: Any, telling: int) -> None:
    import torch

    import trimtab
    from trimtab.errors import TrimtabError

    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(order.num_ranks),
        "LOCAL_WORLD_SIZE": str(order.num_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    # gloo tells of a lost peer on stderr too.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    faulthandler.enable(telling)
    status, error = 0, ""
    try:
        if order.verb == "train":
            trimtab.train(plan)
        else:
            trimtab.resume(order.root)
    except TrimtabError as failure:
        status, error = failure.exit_code, str(failure)
    except BaseException as failure:
        status, error = 1, f"{type(failure).__name__}: {failure}"
    with os.fdopen(telling, "w") as stream:
        stream.write(error)
    os._exit(status if rank == 0 else 0)


@dataclass(frozen=True)
class RanksStory:
    """How often one of the ranks was killed, how long the others lived on, what was wrong."""

    num_kills: int
    longest_s: float
    wrong: tuple[str, ...]


def timed_whole(runs: DyingRanks, folder: Path) -> tuple[Path, float]:
    """A run that is not interrupted, and its seconds."""
    ended = runs.run("train", folder / "whole")
    assert set(ended.statuses) == {0}, ended
    return folder / "whole", ended.ended_s


def killed_until_done(
    runs: DyingRanks, run: Path, whole: Path, *, whole_s: float, choice: random.Random
) -> RanksStory:
    """Kill one rank at a random moment, resume, sometimes kill again, and compare the end."""
    wrong: list[str] = []
    num_kills, longest_s, again = 0, 0.0, True
    while True:
        is_begun = (run / "plan.json").exists()
        if not is_begun:
            shutil.rmtree(run, ignore_errors=True)
        options: dict[str, Any] = {}
        if again:
            after_s = choice.uniform(0, whole_s)
            options = {"victim": choice.randrange(2), "after_s": after_s}
        ended = runs.run("resume" if is_begun else "train", run, **options)
        if -signal.SIGKILL not in ended.statuses:
            break
        num_kills += 1
        longest_s = max(longest_s, ended.ended_s)
        if ended.ended_s > GRACE_S:
            wrong.append(f"the other rank lived on for {ended.ended_s:.0f} s")
        missing = lost(run)
        wrong += [] if missing is None else [missing]
        again = choice.random() < 0.5
    if any(ended.statuses) and "the run is finished" not in ended.errors[0]:
        wrong.append(f"not resumed: {ended.errors}")
    else:
        wrong += differences(run, whole)
    shutil.rmtree(run)
    return RanksStory(num_kills, longest_s, tuple(wrong))


if __name__ == "__main__":
    main()
