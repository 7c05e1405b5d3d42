"""Trials as tasks of Ray's, on this machine or on a cluster that sees the same files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from trimtab.engine.stops import StopRequested
from trimtab.errors import ConfigError
from trimtab.search.executors import Executor, NextOrder
from trimtab.workflow.ray_cluster import connected_ray
from trimtab.workflow.trial_process import dead_run
from trimtab.workflow.trial_runs import OnUpdate, TrialOrder, TrialRun, run_trial

POLL_S = 0.5
DEADLY = {
    "WorkerCrashedError": "its worker died",
    "OutOfMemoryError": "its worker was ended, as the machine ran out of memory",
    "NodeDiedError": "its machine was lost",
    "LocalRayletDiedError": "Ray ended on its machine",
}
"""Ray's errors for a task whose process is gone, with what that says of the trial."""


def ray_executor(on: str) -> Executor:
    """On `ray`, or `ray:ADDRESS` of a cluster. Raises ConfigError as `connected_ray` does."""
    return RayExecutor(connected_ray(on))


class RayExecutor:
    """As many trials at once as there are devices for: GPUs where a trial needs one, else CPUs.

    A trial on CPUs takes as many as this process has threads for torch, so that it computes alike;
    one on a GPU takes one.
    """

    def __init__(self, ray: Any, *, num_at_once: int | None = None) -> None:
        self._ray = ray
        self._num_at_once = num_at_once

    def results(
        self,
        next_order: NextOrder,
        *,
        on_update: OnUpdate,
        stop_requested: Callable[[], bool],
    ) -> Iterator[tuple[int, TrialRun]]:
        under_way: dict[Any, tuple[int, TrialOrder]] = {}
        try:
            while True:
                self._start(next_order, under_way)
                if not under_way:
                    return
                if stop_requested():
                    raise StopRequested
                done, _ = self._ray.wait(list(under_way), timeout=POLL_S)
                for reference in done:
                    number, order = under_way.pop(reference)
                    yield number, self._result(reference, order, stop_requested)
        finally:
            for reference in under_way:
                self._ray.cancel(reference, force=True)

    def _result(
        self, reference: Any, order: TrialOrder, stop_requested: Callable[[], bool]
    ) -> TrialRun:
        """A worker that dies is a trial that diverged, with the reason, as a process here is."""
        deadly = {getattr(self._ray.exceptions, name): told for name, told in DEADLY.items()}
        try:
            run: TrialRun = self._ray.get(reference)
        except tuple(deadly) as died:
            if stop_requested():
                raise StopRequested from None
            reason = next(told for kind, told in deadly.items() if isinstance(died, kind))
            return dead_run(order, reason)
        return run

    def close(self) -> None:
        """Ray keeps its own workers."""

    def _start(self, next_order: NextOrder, under_way: dict[Any, tuple[int, TrialOrder]]) -> None:
        while not under_way or len(under_way) < self._most(is_cuda=self._is_cuda):
            asked = next_order()
            if asked is None:
                return
            number, order = asked
            self._is_cuda = order.settings.device.startswith("cuda")
            num_threads = torch.get_num_threads()
            task = self._ray.remote(_trial).options(
                num_cpus=1 if self._is_cuda else self._checked(num_threads),
                num_gpus=int(self._is_cuda),
                max_retries=0,
            )
            under_way[task.remote(order, num_threads)] = number, order

    _is_cuda = False

    def _checked(self, num_threads: int) -> int:
        """Raises ConfigError where no machine has as many CPUs: Ray would wait for one for ever."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        most = max((int(resources.get("CPU", 0)) for resources in nodes), default=0)
        if most < num_threads:
            raise ConfigError(
                f"a run takes {num_threads} CPUs, the threads of this process, and no machine of "
                f"this Ray has more than {most}.",
                hint=f"Set OMP_NUM_THREADS={max(1, most)}, or start Ray with more CPUs.",
            )
        return num_threads

    def _most(self, *, is_cuda: bool) -> int:
        if self._num_at_once is not None:
            return self._num_at_once
        resources = self._ray.cluster_resources()
        if is_cuda:
            return max(1, int(resources.get("GPU", 1)))
        return max(1, int(resources.get("CPU", 1)) // torch.get_num_threads())


def _trial(order: TrialOrder, num_threads: int) -> TrialRun:
    torch.set_num_threads(num_threads)
    return run_trial(order)
