"""The trials of a search in Optuna's storage, where a killed search finds them again."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
import psutil
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from trimtab.errors import ConfigError
from trimtab.search.design import Design
from trimtab.search.samplers import SamplerByNumber, first_points
from trimtab.workflow.trial_runs import TrialRun

RUN = "run"
WORKER = "worker"
DESIGN = "design"
REFERENCE = "reference"
REPEATS = "repeats"
Score = Callable[[TrialRun], float | None]
"""What the sampler is told of a run; None where it diverged."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A trial that came to its end; `params` are as proposed, in the search's space."""

    number: int
    params: Mapping[str, float]
    run: TrialRun


def branches(finished: Sequence[Finished]) -> list[Finished]:
    """The shorter runs that branched off these."""
    return [
        Finished(each.number, each.params, each.run.branch)
        for each in finished
        if each.run.branch is not None
    ]


class Trials:
    """One study of Optuna's, made or taken up.

    Raises ConfigError where the storage has one of this name with another design or plan.
    """

    def __init__(self, storage: RDBStorage, name: str, design: Design, identity: str) -> None:
        self._storage, self._name, self._design = storage, name, design
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            sampler=SamplerByNumber(design),
            direction="minimize",
            load_if_exists=True,
        )
        self._study_id = storage.get_study_id_from_name(name)
        known = self._study.user_attrs.get(DESIGN)
        asked = {"design": design.to_json(), "plan": identity}
        if known is None:
            self._study.set_user_attr(DESIGN, asked)
        elif known != json.loads(json.dumps(asked)):
            raise ConfigError(
                f"the storage holds a search {name} of another configuration or budget.",
                hint="Choose another --output-dir or --storage.",
            )
        if not self._study.get_trials(deepcopy=False):
            for point in first_points(design):
                self._study.enqueue_trial(point, skip_if_exists=True)

    def finished(self) -> list[Finished]:
        """In the order of their numbers, without repeats."""
        return [
            Finished(trial.number, trial.params, TrialRun.from_json(trial.user_attrs[RUN]))
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state in {TrialState.COMPLETE, TrialState.PRUNED}
            and REPEATS not in trial.user_attrs
        ]

    @property
    def reference(self) -> TrialRun | None:
        """The run of the plan's own values, where the space has no place for it."""
        kept = self._study.user_attrs.get(REFERENCE)
        return None if kept is None else TrialRun.from_json(kept)

    def keep_reference(self, run: TrialRun) -> None:
        self._study.set_user_attr(REFERENCE, run.to_json())

    def take_up(self, score: Score) -> None:
        """Trials that a process of this machine left when it died are made again, as proposed.

        One whose run was kept already is told as it is.
        """
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if _is_alive(trial.user_attrs.get(WORKER)):
                continue
            if RUN in trial.user_attrs:
                self._tell(trial.number, score(TrialRun.from_json(trial.user_attrs[RUN])))
            else:
                self.give_back(trial.number)

    def next(self, num_trials: int) -> FrozenTrial | None:
        """The next trial, with its params; None where as many have begun, repeats not counted."""
        begun = self._study.get_trials(deepcopy=False)
        waiting = sum(trial.state == TrialState.WAITING for trial in begun)
        num_repeats = sum(trial.user_attrs.get(REPEATS) is not None for trial in begun)
        if len(begun) - waiting - num_repeats >= num_trials or num_repeats >= num_trials:
            return None
        asked = self._study.ask({space.name: space.distribution for space in self._design.spaces})
        asked.set_user_attr(WORKER, _this_process())
        return self._storage.get_trial(self._trial_id(asked.number))

    def under_way(self) -> list[FrozenTrial]:
        """Begun, by whichever process, and not at their end, with all of their params."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in running if set(self._design.names) <= trial.params.keys()]

    def give_back(self, number: int) -> None:
        """The trial waits again, and is proposed again as it was."""
        self._storage.set_trial_state_values(self._trial_id(number), TrialState.WAITING)

    def keep(self, number: int, run: TrialRun, score: float | None) -> None:
        self._storage.set_trial_user_attr(self._trial_id(number), RUN, run.to_json())
        self._tell(number, score)

    def repeat(self, number: int, run: TrialRun, score: float | None) -> None:
        """The trial proposed what was run before, and would come out the same."""
        self._storage.set_trial_user_attr(self._trial_id(number), REPEATS, True)
        self.keep(number, run, score)

    def _tell(self, number: int, score: float | None) -> None:
        """What diverged is told as pruned: every sampler takes that for worse than any loss."""
        trial_id = self._trial_id(number)
        if score is None:
            self._storage.set_trial_state_values(trial_id, TrialState.PRUNED)
        else:
            self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [score])

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)


@contextmanager
def open_storage(url: str) -> Iterator[RDBStorage]:
    """Optuna's storage at the URL. Raises ConfigError where it cannot be opened."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = RDBStorage(url)
    except Exception as error:
        cause = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"the search's storage cannot be opened: {cause}.",
            where=url,
            hint="Give a URL that Optuna knows, such as sqlite:///trials.db.",
        ) from error
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _this_process() -> dict[str, Any]:
    started = psutil.Process().create_time()
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started}


def _is_alive(worker: Mapping[str, Any] | None) -> bool:
    """A process of another machine is taken to live: nobody here can tell."""
    if worker is None:
        return False
    if worker["host"] != socket.gethostname():
        return True
    if worker == _this_process():
        return False
    try:
        started: float = psutil.Process(worker["pid"]).create_time()
    except psutil.NoSuchProcess:
        return False
    return bool(started == worker["started"])
