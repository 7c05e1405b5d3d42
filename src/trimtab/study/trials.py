"""The runs of a study, each made once and kept as a line of its ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from trimtab.engine.observer import Observer
from trimtab.engine.stops import StopRequested
from trimtab.errors import DoesNotFit
from trimtab.planning.fingerprint import digest
from trimtab.probes.fork_server import ForkServer
from trimtab.runs.ledger import Ledger
from trimtab.study.design import NOT_OF_THE_UPDATES
from trimtab.study.folder import StudyFolder
from trimtab.workflow.trial_process import dead_run, run_trial_apart
from trimtab.workflow.trial_runs import TrialOrder, TrialRun, UpdatesDone, run_trial


def settings_key(order: TrialOrder) -> str:
    """A digest of what the run depends on; the rows and the model are the study's."""
    values = {
        name: value
        for name, value in asdict(order.settings).items()
        if name not in NOT_OF_THE_UPDATES
    }
    return digest(values)


@dataclass
class Trials:
    """Makes a run the first time that it is asked for, and recalls it from then on; one whose
    process died or whose weights did not fit is made again where the study goes on.

    `in_process` runs are cheaper; those in processes of their own, which `server` forks, tell their
    own peak memory.
    """

    folder: StudyFolder
    observer: Observer
    stop_requested: Callable[[], bool]
    server: ForkServer
    in_process: bool = False
    _kept: dict[str, TrialRun] = field(default_factory=dict)
    _seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        for record in Ledger(self.folder.trials_jsonl).read().records:
            run = TrialRun.from_json(record["run"])
            if not run.died:
                self._keep(record["key"], run)

    @property
    def mean_seconds(self) -> float | None:
        """Of a whole run, loading and scoring included; None before the first."""
        return sum(self._seconds) / len(self._seconds) if self._seconds else None

    def has(self, order: TrialOrder) -> bool:
        return settings_key(order) in self._kept

    def run(self, order: TrialOrder, title: str) -> TrialRun:
        """The order's run. Raises StopRequested where a stop is asked for before it is done."""
        key = settings_key(order)
        if key in self._kept:
            return self._kept[key]
        if self.stop_requested():
            raise StopRequested
        made = self._make(order, title)
        record: Mapping[str, Any] = {"key": key, "run": made.to_json()}
        Ledger(self.folder.trials_jsonl).append(record, durable=True)
        self._keep(key, made)
        return made

    def _make(self, order: TrialOrder, title: str) -> TrialRun:
        num_told = 0

        def updated(done: UpdatesDone) -> None:
            nonlocal num_told
            self.observer.advanced(done.num_updates - num_told)
            num_told = done.num_updates

        started = time.perf_counter()
        self.observer.activity(title, order.settings.num_train_steps)
        run = run_trial if self.in_process else partial(run_trial_apart, server=self.server)
        try:
            made = run(order, on_update=updated, stop_requested=self.stop_requested)
        except DoesNotFit as error:
            made = dead_run(order, error.what)
        finally:
            self.observer.activity_done()
        told = f"held-out loss {made.eval_loss:.4f}" if made.diverged is None else made.diverged
        self.observer.noted(f"{title}: {told}, {time.perf_counter() - started:.1f} s in all")
        return made

    def _keep(self, key: str, run: TrialRun) -> None:
        self._kept[key] = run
        if run.diverged is None:
            self._seconds.append(run.total_seconds)
