"""The trials of a search in Optuna's storage, where a killed search finds them again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError

from trimtab.errors import ConfigError
from trimtab.search.design import Design
from trimtab.search.liveness import BEAT, WORKER, Watch, beating, this_process
from trimtab.search.samplers import SamplerByNumber, first_points
from trimtab.workflow.trial_runs import TrialRun

RUN = "run"
DESIGN = "design"
REFERENCE = "reference"
CLAIM = "reference claim"
REFERENCE_NUMBER = -1
"""Stands for the reference among the numbers of trials."""
REPEATS = "repeats"
PART_SIZE = 30_000
"""Characters of a run's text in one attribute; quotes in it are escaped, and so take two."""
NUM_TRIES = 3
BETWEEN_TRIES_S = 0.5
SQLITE_TIMEOUT_S = 60.0
"""For as long one process waits for another that writes."""
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
    """One study of Optuna's, made or taken up; `is_shared` where other processes may have it too.

    Raises ConfigError where the storage has one of this name with another design or plan.
    """

    def __init__(
        self, storage: RDBStorage, name: str, design: Design, identity: str, *, is_shared: bool
    ) -> None:
        self._storage, self._name, self._design = storage, name, design
        self._watch = Watch() if is_shared else None
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
            Finished(trial.number, trial.params, _read(RUN, trial.user_attrs))
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state.is_finished()
            and RUN in trial.user_attrs
            and REPEATS not in trial.user_attrs
        ]

    @property
    def reference(self) -> TrialRun | None:
        """The run of the plan's own values, where the space has no place for it."""
        kept = self._study.user_attrs
        return _read(REFERENCE, kept) if REFERENCE in kept else None

    def claims_reference(self) -> bool:
        """Whether it is for this process to make: nobody has, and nobody else is about to."""
        if self.reference is not None:
            return False
        claim = self._study.user_attrs.get(CLAIM, {})
        if claim and self._watch is not None and self._watch.is_alive(REFERENCE_NUMBER, claim):
            return False
        self._study.set_user_attr(CLAIM, {WORKER: this_process()})
        return True

    def keep_reference(self, run: TrialRun) -> None:
        for name, value in _parts(REFERENCE, run):
            self._study.set_user_attr(name, value)

    def take_up(self, score: Score) -> None:
        """Trials that a process left when it died are made again, as proposed.

        One whose run was kept already is told as it is. Where no other process has the storage,
        all that have begun were left.
        """
        for trial in self.running():
            if self._watch is not None and self._watch.is_alive(trial.number, trial.user_attrs):
                continue
            if RUN in trial.user_attrs:
                run = _read(RUN, trial.user_attrs)
                self._tell(trial.number, run, score(run))
            elif self._is_left_as(trial):
                self.give_back(trial.number)

    def _is_left_as(self, seen: FrozenTrial) -> bool:
        """Whether no other process has taken it up since it was seen."""
        now = self._storage.get_trial(self._trial_id(seen.number))
        return now.state == seen.state and now.user_attrs == seen.user_attrs

    def next(self, num_trials: int) -> FrozenTrial | None:
        """The next trial, with its params; None where as many have begun, repeats not counted."""
        begun = self._begun()
        num_repeats = sum(trial.user_attrs.get(REPEATS) is not None for trial in begun)
        if len(begun) - num_repeats >= num_trials or num_repeats >= num_trials:
            return None
        asked = self._study.ask({space.name: space.distribution for space in self._design.spaces})
        asked.set_user_attr(WORKER, this_process())
        earlier = [trial for trial in self._begun() if trial.number < asked.number]
        if sum(REPEATS not in trial.user_attrs for trial in earlier) >= num_trials:
            # Another process has asked at the same time.
            self.give_back(asked.number)
            return None
        return self._storage.get_trial(self._trial_id(asked.number))

    def _begun(self) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != TrialState.WAITING]

    def under_way(self) -> list[FrozenTrial]:
        """Begun, by whichever process, and not at their end, with all of their params."""
        return [trial for trial in self.running() if trial.params.keys() >= set(self._design.names)]

    def running(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def give_back(self, number: int) -> None:
        """The trial waits again, and is proposed again as it was.

        Whoever takes it up names itself a moment later; until then no worker that is gone is named.
        """
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(self._trial_id(number), WORKER, None)
            self._storage.set_trial_state_values(self._trial_id(number), TrialState.WAITING)

    def keep(self, number: int, run: TrialRun, score: float | None) -> None:
        """What another process has kept already, having taken this one for dead, stays."""
        with suppress(UpdateFinishedTrialError):
            for name, value in _parts(RUN, run):
                self._storage.set_trial_user_attr(self._trial_id(number), name, value)
            self._tell(number, run, score)

    def beating(self, numbers: Collection[int]) -> AbstractContextManager[None]:
        """Meanwhile others are told that the trials of these numbers are being run."""
        if self._watch is None:
            return nullcontext()

        def beat(number: int, count: int) -> None:
            try:
                if number == REFERENCE_NUMBER:
                    claim = {WORKER: this_process(), BEAT: count}
                    self._storage.set_study_user_attr(self._study_id, CLAIM, claim)
                else:
                    self._storage.set_trial_user_attr(self._trial_id(number), BEAT, count)
            finally:
                self._storage.remove_session()

        return beating(beat, numbers)

    def repeat(self, number: int, run: TrialRun, score: float | None) -> None:
        """The trial proposed what was run before, and would come out the same."""
        self._storage.set_trial_user_attr(self._trial_id(number), REPEATS, True)
        self.keep(number, run, score)

    def _tell(self, number: int, run: TrialRun, score: float | None) -> None:
        """What diverged is told as pruned, which the local sampler and TPE take for worse than any
        loss; what was lost as failed."""
        trial_id = self._trial_id(number)
        if score is None:
            state = TrialState.FAIL if run.is_lost else TrialState.PRUNED
            self._storage.set_trial_state_values(trial_id, state)
        else:
            self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [score])

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)


def _parts(name: str, run: TrialRun) -> Iterator[tuple[str, Any]]:
    """The run as attributes, that of `name` alone last: where that is kept, all are.

    A value of MySQL's and MariaDB's takes 65,535 bytes, and a run has every held-out row in it.
    """
    text = json.dumps(run.to_json(), separators=(",", ":"))
    parts = [text[start : start + PART_SIZE] for start in range(0, len(text), PART_SIZE)]
    yield from ((f"{name} {number}", part) for number, part in enumerate(parts))
    yield name, len(parts)


def _read(name: str, attributes: Mapping[str, Any]) -> TrialRun:
    parts = [attributes[f"{name} {number}"] for number in range(attributes[name])]
    return TrialRun.from_json(json.loads("".join(parts)))


def _opened(url: str) -> RDBStorage:
    """Where another process makes the tables meanwhile, they are there at the next try."""
    options = {"connect_args": {"timeout": SQLITE_TIMEOUT_S}} if url.startswith("sqlite") else {}
    for _ in range(NUM_TRIES - 1):
        try:
            return RDBStorage(url, engine_kwargs=dict(options))
        except OperationalError:
            time.sleep(BETWEEN_TRIES_S)
    return RDBStorage(url, engine_kwargs=options)


@contextmanager
def open_storage(url: str) -> Iterator[RDBStorage]:
    """Optuna's storage at the URL. Raises ConfigError where it cannot be opened."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = _opened(url)
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
