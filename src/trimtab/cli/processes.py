"""A command in several processes that train together, started by torch's elastic launcher.

Its layer of processes is used, and not the agent above it: the agent gives up the exit codes of
its processes where it is asked to stop, and allows them 30 seconds, where a weight update and its
checkpoint may take longer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.errors import ConfigError, Interrupted
from trimtab.workflow.launch import Launch, current_launch

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.api import PContext, RunProcsResult

LOCALHOST = "127.0.0.1"
POLL_S = 0.1
LAUNCHER = "TRIMTAB_LAUNCHER"
"""The process that has started this one, which may be gone before this one can look."""
LAUNCHER_HOLDS_STORE = "TORCHELASTIC_USE_AGENT_STORE"
LAUNCHER_POLL_S = 0.5
FOLLOWING_COMMANDS = frozenset({"train", "resume"})

NumProcesses = Annotated[
    int | None,
    typer.Option(
        "--num-processes",
        min=1,
        help="Train in so many processes of this machine, each with a GPU of its own or a part of "
        "the CPU.",
    ),
]


On = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="WHERE",
        help="local, ray, or ray:ADDRESS of a cluster whose machines see the same files.",
    ),
]


def follow_quietly(arguments: Sequence[str]) -> int:
    """What a process behind the first does of a command: it trains along, and says nothing.

    The first tells how it ended, in words and by its exit code, so that this one's is 0 as long as
    the first can know.
    """
    import trimtab
    from trimtab.errors import TrimtabError

    if not FOLLOWING_COMMANDS & set(arguments[:1]):
        return 0
    with contextlib.suppress(TrimtabError):
        trimtab.train()
    return 0


def end_with_launcher() -> None:
    """Have this rank stop as by SIGTERM, saved and resumable, once its launcher is gone.

    A launcher that is killed can tell nobody, and without the store that it holds (torchrun's agent
    does too) the ranks would go on unattended. Others, as Slurm, end their processes themselves.
    """
    if os.environ.get(LAUNCHER_HOLDS_STORE) == "True":
        launcher = int(os.environ.get(LAUNCHER, os.getppid()))
        threading.Thread(target=_end_without, args=(launcher,), daemon=True).start()


def _end_without(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(LAUNCHER_POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)


def is_alone_or_first() -> bool:
    return current_launch().rank == 0


def started_processes(
    num_processes: int | None, on: str, arguments: Sequence[str], *, device: Callable[[], str]
) -> int | None:
    """Run the command in processes of their own; None where this one is to do it.

    `device` is what the configuration says of it, and asked for where others place the processes.
    Returns the exit code of the first. Raises ConfigError where a launcher has started others than
    are asked for, and Interrupted where the first process was killed.
    """
    launch = current_launch()
    if LAUNCHER in os.environ:
        return None
    if on == "local" and (num_processes is None or launch.num_ranks == num_processes):
        return None
    if launch != Launch():
        asked = f"--on {on}" if num_processes is None else f"--num-processes {num_processes}"
        raise ConfigError(
            f"{asked}: the launcher has started {launch.num_ranks}.",
            hint="Leave the option out under torchrun.",
        )
    if on != "local":
        from trimtab.cli.ray_processes import run_on_ray

        return exit_code_of(run_on_ray(on, num_processes, arguments, device=device()), on)
    assert num_processes is not None
    result = _run(num_processes, arguments)
    failures = {} if result is None else result.failures
    ends = dict.fromkeys(range(num_processes), 0)
    return exit_code_of(ends | {rank: each.exitcode for rank, each in failures.items()}, on)


def exit_code_of(ends: Mapping[int, int], on: str) -> int:
    """The first process's exit code, of each one's by its rank; negative: the signal it died of.

    Raises Interrupted where processes were killed and the first could not tell of it.
    """
    if ends[0] > 0 or not any(ends.values()):
        return ends[0]
    names = ", ".join(
        f"{rank} ({signal.Signals(-code).name})" for rank, code in sorted(ends.items()) if code < 0
    )
    where = "" if on == "local" else f" --on {on}"
    raise Interrupted(
        f"killed: process {names} of {len(ends)}; what was saved before is there.",
        hint=f"Go on with: trimtab resume RUN --num-processes {len(ends)}{where}",
    )


def _run(num_processes: int, arguments: Sequence[str]) -> RunProcsResult | None:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]
    from torch.distributed.elastic.multiprocessing import (
        DefaultLogsSpecs,
        Std,
        start_processes,
    )

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    store = TCPStore(LOCALHOST, 0, is_master=True, wait_for_workers=False)
    ranks = range(num_processes)
    with tempfile.TemporaryDirectory(prefix="trimtab-processes-") as logs:
        context = start_processes(
            name="trimtab",
            entrypoint=sys.executable,
            args=dict.fromkeys(ranks, ("-m", "trimtab", *arguments)),
            envs={rank: _environment(rank, num_processes, store.port) for rank in ranks},
            # What libraries print in other processes than the first is the same again.
            logs_specs=DefaultLogsSpecs(logs, redirects=dict.fromkeys(ranks[1:], Std.ALL)),
        )
        return _waited(context)


def _environment(rank: int, num_processes: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        **environment_of_launched(LOCALHOST, port, num_threads=_num_cpus() // num_processes),
    }


def _num_cpus() -> int:
    """Those that this process may use; macOS binds no process to any."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment_of_launched(address: str, port: int, *, num_threads: int) -> dict[str, str]:
    """What a process of ours is told beside its rank: the store, its launcher, its threads."""
    return {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        LAUNCHER_HOLDS_STORE: "True",
        LAUNCHER: str(os.getpid()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, num_threads))),
    }


def _waited(context: PContext) -> RunProcsResult | None:
    """Until all have ended, or one has failed and the others were ended; signals go on to all."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    while True:
        try:
            result = context.wait(period=POLL_S)
        except SignalException as stop:
            for process in context.pids().values():
                _send(process, stop.sigval)
        else:
            return result


def _send(process: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)
