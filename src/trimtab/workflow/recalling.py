"""Facts that earlier plans and runs have left, for as long as they hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from trimtab.engine.observer import Observer
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.planning.fact import Fact, Facts
from trimtab.planning.fingerprint import Fingerprint, Part, changed_parts
from trimtab.planning.questions import DeviceQuestion, Question, TrialsQuestion
from trimtab.probes.device_identity import available_memory
from trimtab.runs.fact_store import FactStore, StoredAnswer, user_fact_store
from trimtab.workflow.fingerprinting import Fingerprints, subject_of, subject_of_run_facts
from trimtab.workflow.trial_points import trials_of, with_earlier_points


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
        self._recalled: list[StoredAnswer] = []
        self._told_changes: set[tuple[Part, ...]] = set()

    def answer(self, question: Question, known: Facts) -> tuple[Fact, ...] | None:
        """The question's facts as measured before; None where it must be measured.

        Of trials, all those made before, where they are more than the `known` facts hold. The
        memory that is available is asked anew. Under `refresh` nothing is recalled.
        """
        fingerprint = self._fingerprints.of_question(question)
        if self._refresh or fingerprint is None:
            return None
        subject = subject_of(self._config, question)
        stored = self._store.answer(subject, fingerprint)
        if stored is None:
            self._tell_change(subject, fingerprint)
            return None
        facts = _facts(stored)
        if isinstance(question, TrialsQuestion) and trials_of(facts) <= trials_of(known):
            return None
        if isinstance(question, DeviceQuestion):
            identity = self._fingerprints.identity
            named = next((fact.value for fact in facts if fact.id == "device.name"), None)
            if identity is None or named != identity.name:
                return None
            facts = (*facts, available_memory(identity))
        self._recalled.append(stored)
        return facts

    def remember(self, question: Question, measured: Sequence[Fact]) -> tuple[Fact, ...]:
        """Keep the answer for the next plan, and return it with what was known of it before.

        An answer that says why it failed is returned only.
        """
        fingerprint = self._fingerprints.of_question(question)
        failed = any(fact.id.endswith(".failure") for fact in measured)
        if fingerprint is None or failed:
            return tuple(measured)
        subject = subject_of(self._config, question)
        facts = tuple(measured)
        stored = self._store.answer(subject, fingerprint)
        if isinstance(question, TrialsQuestion) and stored is not None and not self._refresh:
            facts = with_earlier_points(facts, Facts().adding(_facts(stored)))
        self._store.remember(subject, fingerprint, [fact.to_json() for fact in facts])
        return facts

    def tell(self) -> None:
        """Say in one line what was recalled, from when, and the time that it saved."""
        if not self._recalled:
            return
        days = sorted({f"{stored.measured_at:%Y-%m-%d}" for stored in self._recalled})
        when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        saved_s = sum(float(fact["cost_s"]) for each in self._recalled for fact in each.facts)
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
    """Keep what a run found out for the next plan of the same model, data and method."""
    fingerprint = Fingerprints(config).of_run_facts()
    if fingerprint is not None:
        records = [fact.to_json() for fact in facts]
        user_fact_store().remember(subject_of_run_facts(config), fingerprint, records)


def recall_run_facts(config: TrainingConfig) -> tuple[Fact, ...]:
    """What the latest run of the same model, data and method has left; nothing where none has."""
    fingerprint = Fingerprints(config).of_run_facts()
    if fingerprint is None:
        return ()
    stored = user_fact_store().answer(subject_of_run_facts(config), fingerprint)
    return () if stored is None else _facts(stored)


def _facts(stored: StoredAnswer) -> tuple[Fact, ...]:
    """The stored facts, which cost this plan nothing."""
    day = _day(stored.measured_at)
    facts = [Fact.from_json(record) for record in stored.facts]
    return tuple(
        replace(fact, cost_s=0.0, method=f"{fact.method}; recalled, measured on {day}")
        for fact in facts
    )


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
