"""What is handed to a measuring process, and the facts that its answers or its death come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.batches import ragged_rows
from support.settings import tiny_settings

from trimtab.data.rows import TokenRow
from trimtab.engine.observer import Silent
from trimtab.models.source import locate
from trimtab.planning.fact import Fact
from trimtab.planning.noise import MicroBatchNorms, noise_scale
from trimtab.planning.questions import (
    NoiseScaleQuestion,
    PrecisionQuestion,
    RateRangeQuestion,
    Trial,
    TrialsQuestion,
)
from trimtab.probes.client import Answer, ProbeDied
from trimtab.workflow import measuring
from trimtab.workflow.measuring import Measured, MeasuredQuestion, answer

LOADED = {"base_bytes": 100, "loaded_bytes": 200, "is_peak_reset": True}
OUTCOME = {"update_s": [0.5, 0.25], "peak_bytes": 300}
TRIALS = (Trial("off", 2), Trial("full", 3, num_micro_batches=2))
DEATH = ProbeDied("it was killed", is_deadly=True)
REFUSAL = ProbeDied("no layer can recompute", is_deadly=False)


class Progress(Silent):
    def __init__(self) -> None:
        self.activities: list[tuple[str, int | None]] = []
        self.done = 0
        self.notes: list[str] = []

    def noted(self, text: str) -> None:
        self.notes.append(text)

    def activity(self, name: str, total: int | None = None) -> None:
        self.activities.append((name, total))

    def advanced(self, amount: int) -> None:
        self.done += amount


class Asked:
    """Stands where a measuring process would, and keeps what it was asked.

    Each process gives the first of by_process that is left, then `answers`. Peaks can be begun
    anew.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: Sequence[Answer | ProbeDied] = ()
        self.by_process: list[Sequence[Answer | ProbeDied]] = []
        self.request: Mapping[str, Any] = {}
        self.num_processes = 0
        self.rows: list[TokenRow] = []
        monkeypatch.setattr(measuring, "asked", self._asked)
        monkeypatch.setattr(measuring, "can_begin_peak", lambda _: True)

    @contextmanager
    def _asked(
        self, request: Mapping[str, Any], rows: Sequence[TokenRow], *, server: None
    ) -> Iterator[Iterator[Answer]]:
        self.request, self.rows = request, list(rows)
        self.num_processes += 1
        yield self._told(self.by_process.pop(0) if self.by_process else self.answers)

    def _told(self, answers: Sequence[Answer | ProbeDied]) -> Iterator[Answer]:
        for each in answers:
            if isinstance(each, ProbeDied):
                raise each
            yield each


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


@pytest.fixture
def measured(tiny_llama_folder: Path) -> Measured:
    source = locate(str(tiny_llama_folder), trust_remote_code=False)
    return Measured(source, ragged_rows(), "a device", Progress())


def facts_of(question: MeasuredQuestion, measured: Measured) -> dict[str, Fact]:
    facts = {fact.id: fact for fact in answer(question, measured)}
    assert all(fact.method for fact in facts.values())
    assert {fact.device for fact in facts.values()} == {"a device"}
    assert sum(fact.cost_s > 0 for fact in facts.values()) == 1
    return facts


def test_each_trial_of_a_whole_model_has_a_process_of_its_own(
    process: Asked, measured: Measured
) -> None:
    process.answers = (LOADED, OUTCOME)
    facts = facts_of(TrialsQuestion(tiny_settings(method="full"), TRIALS), measured)
    assert process.num_processes == len(TRIALS) == 2
    points = facts["trials.points"].value
    assert isinstance(points, list)
    assert [point["num_rows"] for point in points] == [trial.num_rows for trial in TRIALS]


def test_each_trial_has_a_process_of_its_own_where_no_peak_begins_anew(
    process: Asked, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "can_begin_peak", lambda _: False)
    process.answers = (LOADED, OUTCOME)
    facts_of(TrialsQuestion(tiny_settings(method="lora"), TRIALS), measured)
    assert process.num_processes == len(TRIALS)


def test_a_process_that_dies_of_loading_is_the_death_of_no_trial(
    process: Asked, measured: Measured
) -> None:
    process.by_process = [(LOADED, OUTCOME), (DEATH,)]
    facts = facts_of(TrialsQuestion(tiny_settings(method="full"), TRIALS), measured)
    points: Any = facts["trials.points"].value
    assert [point["peak_bytes"] for point in points] == [300]
    assert facts["trials.loaded_bytes"].value == 200
    assert "it was killed" in facts["trials.points"].method


def test_a_process_that_dies_after_its_trial_is_the_death_of_no_other(
    process: Asked, measured: Measured
) -> None:
    process.by_process = [(LOADED, OUTCOME, DEATH)]
    facts = facts_of(TrialsQuestion(tiny_settings(method="full"), TRIALS), measured)
    points: Any = facts["trials.points"].value
    assert [point["peak_bytes"] for point in points] == [300]


def test_trials_come_with_the_sizes_of_the_longest_rows(process: Asked, measured: Measured) -> None:
    process.answers = (LOADED, OUTCOME, OUTCOME)
    question = TrialsQuestion(tiny_settings(method="lora"), TRIALS)
    facts = facts_of(question, measured)
    assert process.num_processes == 1
    assert facts["trials.key"].value == question.key
    assert facts["trials.base_bytes"].value == 100
    assert facts["trials.loaded_bytes"].value == 200
    process_bytes = facts["trials.process_bytes"].value
    assert isinstance(process_bytes, int)
    assert process_bytes > 10 << 20
    scored = [row.num_trainable_tokens for row in ragged_rows() if row.num_tokens in {30, 21, 17}]
    assert facts["trials.points"].value == [
        {
            "activation_checkpointing": "off",
            "num_rows": 2,
            "num_micro_batches": 1,
            "num_tokens": 51,
            "num_scored": scored[1] + scored[2],
            "sum_length_squared": 30**2 + 21**2,
            **OUTCOME,
        },
        {
            "activation_checkpointing": "full",
            "num_rows": 3,
            "num_micro_batches": 2,
            "num_tokens": 68,
            "num_scored": sum(scored),
            "sum_length_squared": 30**2 + 21**2 + 17**2,
            **OUTCOME,
        },
    ]
    # Only the rows that are needed travel.
    assert sorted(row.num_tokens for row in process.rows) == [17, 21, 30]
    assert [trial["units"] for trial in process.request["trials"]] == [[[0], [1]], [[0], [1], [2]]]
    assert isinstance(measured.observer, Progress)
    assert measured.observer.activities == [("measuring memory and speed", 2)]
    assert measured.observer.done == 2


def test_a_trial_that_kills_ends_the_trials_and_is_a_point(
    process: Asked, measured: Measured
) -> None:
    process.answers = (LOADED, OUTCOME, DEATH)
    question = TrialsQuestion(tiny_settings(method="lora"), (*TRIALS, Trial("off", 8)))
    facts = facts_of(question, measured)
    points: Any = facts["trials.points"].value
    assert [point["peak_bytes"] for point in points] == [300, None]
    assert points[1]["num_rows"] == 3
    assert "it was killed" in facts["trials.points"].method
    assert "trials.failure" not in facts


def test_a_trial_that_cannot_be_made_is_no_point(process: Asked, measured: Measured) -> None:
    process.answers = (LOADED, OUTCOME, REFUSAL)
    facts = facts_of(TrialsQuestion(tiny_settings(method="lora"), TRIALS), measured)
    points: Any = facts["trials.points"].value
    assert [point["peak_bytes"] for point in points] == [300]
    assert "no layer can recompute" in facts["trials.points"].method


@pytest.mark.parametrize("answers", [(DEATH,), (LOADED, REFUSAL)])
def test_nothing_measured_is_a_failure(
    answers: tuple[Any, ...], process: Asked, measured: Measured
) -> None:
    process.answers = answers
    facts = facts_of(TrialsQuestion(tiny_settings(), TRIALS), measured)
    assert facts["trials.failure"].value == answers[-1].reason
    assert "trials.points" not in facts


def test_a_peak_that_could_not_be_reset_is_told(process: Asked, measured: Measured) -> None:
    process.answers = ({**LOADED, "is_peak_reset": False}, OUTCOME)
    facts = facts_of(TrialsQuestion(tiny_settings(), TRIALS[:1]), measured)
    assert "could not be reset" in facts["trials.points"].method


def test_number_formats_come_with_their_gradients(process: Asked, measured: Measured) -> None:
    outcome = {"update_s": 0.5, "overflows": False}
    same = {**outcome, "precision": "fp32", "gradient_cosine": 1.0, "gradient_norm_ratio": 1.0}
    lost = {"lost_update_share": {"fp32": 0.0, "fp16": 0.4}}
    broken = {
        "precision": "fp16",
        "update_s": 0.7,
        "overflows": True,
        "gradient_cosine": None,
        "gradient_norm_ratio": None,
    }
    process.answers = (same, lost, broken)
    question = PrecisionQuestion(tiny_settings(), ("fp16",))
    values = {name: fact.value for name, fact in facts_of(question, measured).items()}
    assert values == {
        "precision.key": question.key,
        "precision.update_s.fp32": 0.5,
        "precision.overflows.fp32": False,
        "precision.gradient_cosine.fp32": 1.0,
        "precision.gradient_norm_ratio.fp32": 1.0,
        "precision.lost_update_share.fp32": 0.0,
        "precision.lost_update_share.fp16": 0.4,
        "precision.update_s.fp16": 0.7,
        "precision.overflows.fp16": True,
    }
    process.answers = (same, DEATH)
    assert facts_of(question, measured)["precision.failure"].value == "it was killed"


@pytest.mark.parametrize("padding", ["none", "longest", "max_length"])
def test_number_formats_are_compared_without_padding_to_max_length(
    padding: str, process: Asked, measured: Measured
) -> None:
    question = PrecisionQuestion(tiny_settings(padding=padding, max_length=4096), ("bf16",))
    facts = facts_of(question, measured)
    assert facts["precision.key"].value == question.key
    lengths = [row.num_tokens for row in process.rows]
    laid_out = "none" if padding == "none" else "longest"
    assert process.request["settings"]["padding"] == laid_out
    num_tokens = sum(lengths) if padding == "none" else len(lengths) * max(lengths)
    assert f"of {num_tokens:,} tokens together" in facts["precision.key"].method


def test_rates_end_where_the_loss_is_no_number(process: Asked, measured: Measured) -> None:
    process.answers = (
        {"learning_rate": 1e-4, "loss": 2.0, "diverged": False},
        {"learning_rate": 1e-3, "loss": float("nan"), "diverged": True},
    )
    question = RateRangeQuestion(tiny_settings(), (1e-4, 1e-3, 1e-2))
    facts = facts_of(question, measured)
    assert facts["rate_range.losses"].value == [[1e-4, 2.0], [1e-3, None]]
    assert facts["rate_range.diverging_rate"].value == 1e-3
    process.answers = process.answers[:1]
    assert facts_of(question, measured)["rate_range.diverging_rate"].value is None
    process.answers = (DEATH,)
    assert facts_of(question, measured)["rate_range.failure"].value == "it was killed"


CLEAR = {"num_examples": 8, "shares": [0.25] * 4, "norms": [2.0] * 4, "norm": 1.5}
LOST = {"num_examples": 8, "shares": [0.25] * 4, "norms": [2.0] * 4, "norm": 1.0}


def noise_question(**changes: Any) -> NoiseScaleQuestion:
    return NoiseScaleQuestion(tiny_settings(**changes), 20, 8, 2, 95.4)


@pytest.fixture
def many_rows(measured: Measured) -> Measured:
    return replace(measured, rows=ragged_rows([5 + index % 7 for index in range(170)]))


def test_the_noise_scale_comes_from_groups_of_the_runs_first_rows(
    process: Asked, many_rows: Measured
) -> None:
    process.answers = [CLEAR] * 20
    question = noise_question(packing=True, max_length=40)
    facts = facts_of(question, many_rows)
    expected = noise_scale([MicroBatchNorms(**CLEAR)] * 20)
    assert expected is not None
    assert facts["noise.key"].value == question.key
    assert facts["noise.scale_examples"].value == expected.examples
    assert facts["noise.num_updates"].value == 20
    assert "at the base weights" in facts["noise.scale_examples"].method
    settings = process.request["settings"]
    assert not settings["packing"]
    assert (settings["per_device_train_batch_size"], settings["gradient_accumulation_steps"]) == (
        2,
        4,
    )
    groups = process.request["micro_batches"]
    assert [len(group) for group in groups] == [2] * 80
    units = [unit for group in groups for unit in group]
    assert sorted(units) == [[index] for index in range(160)]
    assert isinstance(many_rows.observer, Progress)
    assert many_rows.observer.activities == [("probing the gradient noise scale", 20)]
    assert many_rows.observer.done == 20
    assert many_rows.observer.notes == [
        "the gradient noise scale takes 20 updates of 8 rows, about 95 s; none is applied"
    ]


@pytest.mark.parametrize(("padding", "laid_out"), [("max_length", "longest"), ("none", "none")])
def test_gradients_are_not_padded_to_max_length(
    padding: str, laid_out: str, process: Asked, many_rows: Measured
) -> None:
    process.answers = [CLEAR] * 20
    facts_of(noise_question(padding=padding), many_rows)
    assert process.request["settings"]["padding"] == laid_out


def test_noise_that_hides_the_gradient_is_told_and_no_failure(
    process: Asked, many_rows: Measured
) -> None:
    process.answers = [LOST] * 20
    facts = facts_of(noise_question(), many_rows)
    assert set(facts) == {"noise.key", "noise.num_updates", "noise.unidentified"}
    assert "includes 0" in str(facts["noise.unidentified"].value)


def test_a_noise_probe_that_dies_is_a_failure(process: Asked, many_rows: Measured) -> None:
    process.answers = [CLEAR, DEATH]
    facts = facts_of(noise_question(), many_rows)
    assert facts["noise.failure"].value == "it was killed"
    assert "noise.scale_examples" not in facts


def test_too_few_rows_for_a_noise_scale_start_no_process(
    process: Asked, measured: Measured
) -> None:
    facts = facts_of(noise_question(), measured)
    assert facts["noise.failure"].value == "it takes 160 rows, each seen once, and there are 8"
    assert process.num_processes == 0
