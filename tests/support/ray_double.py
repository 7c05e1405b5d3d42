"""What a search asks of Ray, answered in this process: a task runs when it is waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class WorkerCrashedError(Exception):
    """As Ray's: the process of a task died."""


class OutOfMemoryError(Exception):
    """As Ray's: the machine ran out of memory and the task was ended for it."""


class NodeDiedError(Exception):
    """As Ray's: the machine of a task is gone."""


class LocalRayletDiedError(Exception):
    """As Ray's: Ray itself ended on the machine of a task."""


@dataclass(eq=False)
class Task:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass
class RayDouble:
    """`most_under_way` is how many tasks were under way at once; `dying` end the tasks of that
    place in the order of their starts with the error."""

    dying: dict[int, Exception] = field(default_factory=dict)
    most_under_way: int = 0
    tasks: list[Task] = field(default_factory=list)
    num_cpus: int = 256
    exceptions: Any = field(
        default_factory=lambda: SimpleNamespace(
            WorkerCrashedError=WorkerCrashedError,
            OutOfMemoryError=OutOfMemoryError,
            NodeDiedError=NodeDiedError,
            LocalRayletDiedError=LocalRayletDiedError,
        )
    )

    def nodes(self) -> list[dict[str, Any]]:
        lost = {"Alive": False, "Resources": {"CPU": 1024.0}}
        return [{"Alive": True, "Resources": {"CPU": float(self.num_cpus)}}, lost]

    def remote(self, function: Callable[..., Any]) -> Any:
        def started(*arguments: Any) -> Task:
            self.tasks.append(Task(function, arguments))
            return self.tasks[-1]

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=started))

    def wait(self, tasks: Sequence[Task], timeout: float) -> tuple[list[Task], list[Task]]:
        self.most_under_way = max(self.most_under_way, len(tasks))
        return [tasks[0]], list(tasks[1:])

    def get(self, task: Task) -> Any:
        error = self.dying.get(self.tasks.index(task))
        if error is not None:
            raise error
        return task.function(*task.arguments)

    def cancel(self, task: Task, *, force: bool) -> None:
        self.tasks.remove(task)
