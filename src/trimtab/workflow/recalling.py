"""Facts that earlier plans and runs have left, for as long as they hold."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from trimtab.engine.observer import Observer
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.planning.fact import Fact, Facts
from trimtab.planning.fingerprint import Fingerprint, Part, changed_parts
from trimtab.planning.questions import (
    DeviceQuestion,
    NoiseScaleQuestion,
    Question,
    TrialsQuestion,
)
from trimtab.planning.tuned import with_earlier
from trimtab.probes.device_identity import DeviceIdentity, available_memory, without_num_threads
from trimtab.runs.fact_store import FactStore, StoredAnswer, user_fact_store
from trimtab.workflow.fingerprinting import (
    Fingerprints,
    dataset_names,
    subject_of,
    subject_of_noise_probe,
    subject_of_run_facts,
    subject_of_studies,
    subject_of_tune,
)
from trimtab.workflow.trial_points import adds_trials, finished_points, with_earlier_points

RECALLED = "recalled, measured on"
"""What the method of a fact from before says."""


class Recall:
    """What is known of one configuration from before; remembers what is measured now.

    `measures` says whether what is not recalled will be measured, which is told.
    """

    def __init__(
        self,
        config: TrainingConfig,
        observer: Observer,
        *,
        measures: bool = True,
        refresh: bool = False,
        store: FactStore | None = None,
    ) -> None:
        self._config = config
        self._observer = observer
        self._measures = measures
        self._refresh = refresh
        self._store = store or user_fact_store()
        self._fingerprints = Fingerprints(config)
        self._recalled: list[tuple[datetime, float]] = []
        """When each recalled answer was measured, and the seconds that it took then."""
        self._told_changes: set[tuple[Part, ...]] = set()

    def answer(self, question: Question, known: Facts) -> tuple[Fact, ...] | None:
        """The question's facts as measured before; None where it must be measured.

        Of trials, all those made before, where they are more than the `known` facts hold. The
        memory that is available, and that which this process holds, are asked anew. A probe of the
        noise scale that holds was recalled by `recall_noise_probe` before anything was asked.
        Under `refresh` nothing is recalled.
        """
        fingerprint = self._fingerprints.of_question(question)
        if self._refresh or fingerprint is None:
            return None
        subject = subject_of(self._config, question)
        stored = self._store.answer(subject, fingerprint)
        if stored is None:
            self._tell_change(subject, fingerprint)
            return None
        measured = _facts(stored)
        if measured is None or isinstance(question, NoiseScaleQuestion):
            return None
        facts = _recalled(stored, measured)
        if isinstance(question, TrialsQuestion):
            if not adds_trials(facts, known):
                return None
            facts = tuple(map(_in_this_process, facts))
        if isinstance(question, DeviceQuestion):
            identity = self._fingerprints.identity
            if identity is None or not _is_named(facts, identity):
                return None
            facts = (*facts, available_memory(identity))
        self._recalled.append((stored.measured_at, sum(fact.cost_s for fact in measured)))
        return facts

    def remember(
        self, question: Question, measured: Sequence[Fact], known: Facts
    ) -> tuple[Fact, ...]:
        """Keep the answer for the next plan, and return it with what is `known` of it.

        Trials are kept with all that were made before. One whose process died is returned only, as
        is an answer that says why it failed: both may go well another time.
        """
        fingerprint = self._fingerprints.of_question(question)
        failed = any(fact.id.endswith(".failure") for fact in measured)
        if fingerprint is None or failed:
            return tuple(measured)
        subject = subject_of(self._config, question)
        if not isinstance(question, TrialsQuestion):
            self._keep(subject, fingerprint, measured)
            return tuple(measured)
        stored = None if self._refresh else self._store.answer(subject, fingerprint)
        earlier = None if stored is None else _facts(stored)
        # The seconds that recalled trials took are in what is kept, and not in what is returned.
        all_made = with_earlier_points(measured, Facts().adding(earlier or ()))
        finished = finished_points(with_earlier_points(all_made, known))
        if finished:
            self._keep(subject, fingerprint, finished)
        return with_earlier_points(measured, known)

    def _keep(self, subject: str, fingerprint: Fingerprint, facts: Sequence[Fact]) -> None:
        self._store.remember(subject, fingerprint, [fact.to_json() for fact in facts])

    def tell(self) -> None:
        """Say in one line what was recalled, from when, and the time that it saved."""
        if not self._recalled:
            return
        days = sorted({_day(measured_at) for measured_at, _ in self._recalled})
        when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        saved_s = sum(cost_s for _, cost_s in self._recalled)
        number = len(self._recalled)
        self._observer.noted(
            f"recalled {number} {'answer' if number == 1 else 'answers'} measured on {when}, "
            f"which saves {saved_s:.1f} s"
        )

    def _tell_change(self, subject: str, fingerprint: Fingerprint) -> None:
        earlier = self._store.latest(subject)
        if earlier is None:
            return
        parts = changed_parts(earlier.fingerprint, fingerprint)
        if parts and parts not in self._told_changes:
            self._told_changes.add(parts)
            changed = f"the {_listed(parts)} changed since {_day(earlier.measured_at)}"
            self._observer.noted(
                f"measured again: {changed}"
                if self._measures
                else f"not recalled: {changed}; a plan without --quick measures again"
            )


def remember_run_facts(config: TrainingConfig, facts: Iterable[Fact]) -> None:
    """Keep what a run found out for the next plan of the same model, data and method.

    The settings of the rows, and the libraries, are those of the run.
    """
    fingerprint = Fingerprints(config).of_run_facts()
    if fingerprint is not None:
        records = [fact.to_json() for fact in facts]
        user_fact_store().remember(subject_of_run_facts(config), fingerprint, records)


def recall_run_facts(config: TrainingConfig) -> tuple[Fact, ...]:
    """What the latest run of the same model, data and method has left; nothing where none has."""
    return _recalled_of_method(config, subject_of_run_facts(config))


def remember_tuned(config: TrainingConfig, facts: Sequence[Fact]) -> bool:
    """Keep what a search found beside what earlier ones did, for the next plan of the same model,
    data and method.

    False where these cannot be told from here, so that nothing is kept.
    """
    fingerprint = Fingerprints(config).of_run_facts()
    if fingerprint is None:
        return False
    records = [fact.to_json() for fact in with_earlier(facts, recall_tuned(config))]
    user_fact_store().remember(subject_of_tune(config), fingerprint, records)
    return True


def reason_not_remembered(config: TrainingConfig) -> str:
    """Why nothing that was found out with the configuration can be told to hold later."""
    has_rows = all(Path(name).expanduser().exists() for name in dataset_names(config))
    return f"the {'model is' if has_rows else 'rows are'} not local files"


def recall_tuned(config: TrainingConfig) -> tuple[Fact, ...]:
    """What finished searches found, each for settings with the key that it bears."""
    return _recalled_of_method(config, subject_of_tune(config))


def recall_noise_probe(config: TrainingConfig) -> tuple[Fact, ...]:
    """What the latest probe of the noise scale found, under the settings that its key says."""
    return _recalled_of_method(config, subject_of_noise_probe(config))


def remember_study_fact(config: TrainingConfig, fact: Fact) -> None:
    """Keep what a study found beside those of other hyperparameters."""
    fingerprint = Fingerprints(config).of_run_facts()
    if fingerprint is None:
        return
    subject, store = subject_of_studies(config), user_fact_store()
    stored = store.answer(subject, fingerprint)
    known = Facts().adding((_facts(stored) if stored is not None else None) or ()).adding([fact])
    store.remember(subject, fingerprint, [each.to_json() for each in known])


def recall_study_facts(config: TrainingConfig) -> tuple[Fact, ...]:
    """What studies of the same model, data and method have found."""
    return _recalled_of_method(config, subject_of_studies(config))


def _recalled_of_method(config: TrainingConfig, subject: str) -> tuple[Fact, ...]:
    fingerprint = Fingerprints(config).of_run_facts()
    if fingerprint is None:
        return ()
    stored = user_fact_store().answer(subject, fingerprint)
    facts = None if stored is None else _facts(stored)
    return () if stored is None or facts is None else _recalled(stored, facts)


def _facts(stored: StoredAnswer) -> tuple[Fact, ...] | None:
    """The facts as they were stored; None where a field of one is missing or not known."""
    try:
        return tuple(Fact.from_json(record) for record in stored.facts)
    except TypeError:
        return None


def _recalled(stored: StoredAnswer, facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """The facts say that they are from before, and cost this plan nothing."""
    told = f"{RECALLED} {_day(stored.measured_at)}"
    return tuple(replace(fact, cost_s=0.0, method=f"{fact.method}; {told}") for fact in facts)


def _in_this_process(fact: Fact) -> Fact:
    """Memory is that of the process which is going to train, as far as it has begun to."""
    if fact.id != "trials.process_bytes" or fact.value == 0 or "torch" not in sys.modules:
        return fact
    import torch

    from trimtab.probes.resident import held_bytes

    held = held_bytes(torch.device("cpu"))
    return replace(fact, value=held, method="the process that recalled the trials")


def _is_named(facts: Iterable[Fact], identity: DeviceIdentity) -> bool:
    """The threads in use are compared with the device's fingerprint, as far as both know them."""
    names = [fact.value for fact in facts if fact.id == "device.name"]
    known = without_num_threads(identity.name)
    return [without_num_threads(str(name)) for name in names] == [known]


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
