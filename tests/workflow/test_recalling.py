"""What holds is recalled, what changed is measured again and says so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.runs import write_rows
from support.settings import tiny_settings

from trimtab.engine.observer import Silent
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.planning.fact import Fact, Facts
from trimtab.planning.questions import (
    DataQuestion,
    DeviceQuestion,
    ModelQuestion,
    Question,
    TrainingRowsQuestion,
    Trial,
    TrialsQuestion,
)
from trimtab.probes.device_identity import identify_device
from trimtab.workflow import fingerprinting
from trimtab.workflow.recalling import Recall, recall_run_facts, remember_run_facts

FACT = Fact("data.num_rows", 48, "rows", method="counted", cost_s=2.5)
ROWS = TrainingRowsQuestion(32, "keep_start", True, 8, "", 7)
NO_FACTS = Facts()


class Notes(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def noted(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(autouse=True)
def _empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def config(tmp_path: Path, tiny_llama_folder: Path) -> TrainingConfig:
    shutil.copytree(tiny_llama_folder, tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl")
    return TrainingConfig(model=str(tmp_path / "model"), dataset=str(rows), device="cpu")


def answer_now(
    config: TrainingConfig, question: Question, notes: Notes | None = None, **options: Any
) -> tuple[Fact, ...] | None:
    return Recall(config, notes or Notes(), **options).answer(question, NO_FACTS)


def test_an_answer_is_recalled_at_no_cost(config: TrainingConfig) -> None:
    notes = Notes()
    Recall(config, notes).remember(DataQuestion(), [FACT])
    recall = Recall(config, notes)
    (fact,) = recall.answer(DataQuestion(), NO_FACTS) or ()
    assert replace(fact, cost_s=2.5, method="counted") == FACT
    assert fact.cost_s == 0
    assert fact.method.startswith("counted; recalled, measured on 20")
    recall.tell()
    (text,) = notes.texts
    assert text.startswith("recalled 1 answer measured on 20")
    assert text.endswith("which saves 2.5 s")


def test_nothing_is_told_where_nothing_was_recalled(config: TrainingConfig) -> None:
    notes = Notes()
    recall = Recall(config, notes)
    assert recall.answer(DataQuestion(), NO_FACTS) is None
    recall.tell()
    assert notes.texts == []


def test_refresh_recalls_nothing(config: TrainingConfig) -> None:
    Recall(config, Notes()).remember(DataQuestion(), [FACT])
    assert answer_now(config, DataQuestion(), refresh=True) is None
    assert answer_now(config, DataQuestion()) is not None


def append_row(config: TrainingConfig) -> None:
    with Path(config.dataset).open("a") as file:
        file.write('{"prompt": "a", "completion": "b"}\n')


def change_model(config: TrainingConfig) -> None:
    file = Path(config.model) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rope_theta": 7.0}))


@pytest.mark.parametrize(
    ("change", "parts"), [(append_row, "the data changed"), (change_model, "the model changed")]
)
def test_changed_files_are_measured_again(config: TrainingConfig, change: Any, parts: str) -> None:
    Recall(config, Notes()).remember(ROWS, [FACT])
    Recall(config, Notes()).remember(DataQuestion(), [FACT])
    change(config)
    notes = Notes()
    recall = Recall(config, notes)
    assert recall.answer(ROWS, NO_FACTS) is None
    assert recall.answer(DataQuestion(), NO_FACTS) is None
    (text,) = notes.texts
    assert text.startswith(f"measured again: {parts} since 20")


def test_a_quick_plan_does_not_say_that_it_measures(config: TrainingConfig) -> None:
    Recall(config, Notes()).remember(DataQuestion(), [FACT])
    append_row(config)
    notes = Notes()
    assert answer_now(config, DataQuestion(), notes, measures=False) is None
    assert notes.texts[0].startswith("not recalled: the data changed since 20")


def test_changed_settings_and_libraries(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    Recall(config, Notes()).remember(DataQuestion(), [FACT])
    fingerprinting._libraries.cache_clear()
    monkeypatch.setattr(fingerprinting, "_version", lambda name: "9.9")
    notes = Notes()
    changed = config.model_copy(update={"completion_only_loss": False})
    assert answer_now(changed, DataQuestion(), notes) is None
    assert notes.texts[0].startswith("measured again: the settings and libraries changed since")
    fingerprinting._libraries.cache_clear()


def test_settings_of_other_questions_change_nothing(config: TrainingConfig) -> None:
    Recall(config, Notes()).remember(ModelQuestion(), [FACT])
    Recall(config, Notes()).remember(DataQuestion(), [FACT])
    changed = config.model_copy(update={"learning_rate": 0.5, "completion_only_loss": False})
    assert answer_now(changed, ModelQuestion()) is not None
    changed = config.model_copy(update={"learning_rate": 0.5, "pad_token": "unk"})
    assert answer_now(changed, DataQuestion()) is not None


def test_a_template_file_is_a_setting(config: TrainingConfig, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    config = config.model_copy(update={"chat_template": str(template)})
    Recall(config, Notes()).remember(DataQuestion(), [FACT])
    assert answer_now(config, DataQuestion()) is not None
    template.write_text("{{ messages[0] }}")
    assert answer_now(config, DataQuestion()) is None


def test_other_rows_questions_are_other_subjects(config: TrainingConfig) -> None:
    Recall(config, Notes()).remember(ROWS, [FACT])
    notes = Notes()
    assert answer_now(config, replace(ROWS, max_length=64), notes) is None
    assert notes.texts == []


def test_available_memory_is_asked_anew(config: TrainingConfig) -> None:
    identity = identify_device("cpu")
    facts = [
        Fact("device.name", identity.name),
        Fact("device.memory_available_bytes", 1),
        Fact("device.matmul_flops_per_s.fp32", 1e9),
    ]
    Recall(config, Notes()).remember(DeviceQuestion("cpu"), facts)
    found = Facts().adding(answer_now(config, DeviceQuestion("cpu")) or ())
    assert found.number("device.matmul_flops_per_s.fp32") == 1e9
    assert found.number("device.memory_available_bytes") > 1


def test_facts_of_another_device_are_not_taken(config: TrainingConfig) -> None:
    Recall(config, Notes()).remember(DeviceQuestion("cpu"), [Fact("device.name", "another")])
    assert answer_now(config, DeviceQuestion("cpu")) is None


def test_failures_are_not_remembered(config: TrainingConfig) -> None:
    failed = Fact("trials.failure", "the process died")
    assert Recall(config, Notes()).remember(DataQuestion(), [FACT, failed]) == (FACT, failed)
    assert answer_now(config, DataQuestion()) is None


def test_rows_of_the_hub_are_not_remembered(config: TrainingConfig) -> None:
    config = config.model_copy(update={"dataset": "owner/name"})
    Recall(config, Notes()).remember(DataQuestion(), [FACT])
    assert answer_now(config, DataQuestion()) is None


def trials(*num_rows: int) -> TrialsQuestion:
    return TrialsQuestion(tiny_settings(), tuple(Trial("off", each) for each in num_rows))


def trial_facts(question: TrialsQuestion, *num_rows: int) -> list[Fact]:
    points = [
        {"activation_checkpointing": "off", "num_rows": each, "num_micro_batches": 1}
        for each in num_rows
    ]
    return [Fact("trials.key", question.key), Fact("trials.points", points)]


def numbers(facts: tuple[Fact, ...] | None) -> list[int]:
    points: Any = Facts().adding(facts or ()).value("trials.points")
    return [point["num_rows"] for point in points]


def test_trials_of_several_plans_are_joined(config: TrainingConfig) -> None:
    first, second = trials(1, 4), trials(8)
    Recall(config, Notes()).remember(first, trial_facts(first, 1, 4))
    recall = Recall(config, Notes())
    found = recall.answer(second, NO_FACTS)
    assert numbers(found) == [1, 4]
    assert recall.answer(second, Facts().adding(found or ())) is None
    assert numbers(recall.remember(second, trial_facts(second, 8))) == [1, 4, 8]
    assert numbers(answer_now(config, first)) == [1, 4, 8]


def test_what_a_run_left_is_recalled_for_its_method(config: TrainingConfig) -> None:
    assert recall_run_facts(config) == ()
    remember_run_facts(config, [Fact("noise.scale_examples", 40.0)])
    assert [fact.value for fact in recall_run_facts(config)] == [40.0]
    longer = config.model_copy(update={"num_train_epochs": 2.0})
    assert [fact.value for fact in recall_run_facts(longer)] == [40.0]
    assert recall_run_facts(config.model_copy(update={"method": "full"})) == ()
    append_row(config)
    assert recall_run_facts(config) == ()
