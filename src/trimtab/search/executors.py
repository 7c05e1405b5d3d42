"""Where the runs of a search are made: here, one after another, or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from trimtab.search.ranges import WHOLE
from trimtab.workflow.trial_process import run_trial_apart, trial_server
from trimtab.workflow.trial_runs import OnUpdate, TrialOrder, TrialRun, run_trial

NextOrder = Callable[[], tuple[int, TrialOrder] | None]
"""The next trial's number with its order; None where there is none now."""


class Executor(Protocol):
    """Makes trials. All executors give the same results for the same orders."""

    def results(
        self,
        next_order: NextOrder,
        *,
        on_update: OnUpdate,
        stop_requested: Callable[[], bool],
    ) -> Iterator[tuple[int, TrialRun]]:
        """Trials with their numbers, as they are done, until there is no next one.

        Raises StopRequested where a stop is asked for; trials under way are then given up.
        """

    def close(self) -> None:
        """End what was kept for further trials."""


class LocalExecutor:
    """One trial at a time on this machine; `apart` gives each a process of its own."""

    def __init__(self, *, apart: bool = False) -> None:
        self._server = trial_server()
        self._run = partial(run_trial_apart, server=self._server) if apart else run_trial

    def results(
        self,
        next_order: NextOrder,
        *,
        on_update: OnUpdate,
        stop_requested: Callable[[], bool],
    ) -> Iterator[tuple[int, TrialRun]]:
        while (asked := next_order()) is not None:
            number, order = asked
            yield number, self._run(order, on_update=on_update, stop_requested=stop_requested)

    def close(self) -> None:
        self._server.close()


def executor_for(on: str, names: Sequence[str]) -> Executor:
    """Runs whose memory differs have processes of their own: one may die of it."""
    if on == "local":
        return LocalExecutor(apart=any(name in WHOLE for name in names))
    from trimtab.search.ray_execution import ray_executor

    return ray_executor(on)
