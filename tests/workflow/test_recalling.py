"""What holds is recalled, what changed is measured again and says so."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
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
    PrecisionQuestion,
    Question,
    RunQuestion,
    TrainingRowsQuestion,
    Trial,
    TrialsQuestion,
)
from trimtab.planning.tuned import facts_under
from trimtab.probes import resident
from trimtab.probes.device_identity import identify_device
from trimtab.workflow import fingerprinting
from trimtab.workflow.recalling import (
    Recall,
    recall_run_facts,
    recall_tuned,
    remember_run_facts,
    remember_tuned,
)

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


def keep(
    config: TrainingConfig,
    question: Question,
    facts: Sequence[Fact],
    known: Facts = NO_FACTS,
    **options: Any,
) -> tuple[Fact, ...]:
    return Recall(config, Notes(), **options).remember(question, facts, known)


def test_an_answer_is_recalled_at_no_cost(config: TrainingConfig) -> None:
    notes = Notes()
    keep(config, DataQuestion(), [FACT])
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
    keep(config, DataQuestion(), [FACT])
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
    keep(config, ROWS, [FACT])
    keep(config, DataQuestion(), [FACT])
    change(config)
    notes = Notes()
    recall = Recall(config, notes)
    assert recall.answer(ROWS, NO_FACTS) is None
    assert recall.answer(DataQuestion(), NO_FACTS) is None
    (text,) = notes.texts
    assert text.startswith(f"measured again: {parts} since 20")


def test_a_quick_plan_does_not_say_that_it_measures(config: TrainingConfig) -> None:
    keep(config, DataQuestion(), [FACT])
    append_row(config)
    notes = Notes()
    assert answer_now(config, DataQuestion(), notes, measures=False) is None
    assert notes.texts[0].startswith("not recalled: the data changed since 20")


def test_changed_settings_and_libraries(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(config, DataQuestion(), [FACT])
    fingerprinting._libraries.cache_clear()
    monkeypatch.setattr(fingerprinting, "_version", lambda name: "9.9")
    notes = Notes()
    changed = config.model_copy(update={"completion_only_loss": False})
    assert answer_now(changed, DataQuestion(), notes) is None
    assert notes.texts[0].startswith("measured again: the settings and libraries changed since")
    fingerprinting._libraries.cache_clear()


def test_settings_of_other_questions_change_nothing(config: TrainingConfig) -> None:
    keep(config, ModelQuestion(), [FACT])
    keep(config, DataQuestion(), [FACT])
    changed = config.model_copy(update={"learning_rate": 0.5, "completion_only_loss": False})
    assert answer_now(changed, ModelQuestion()) is not None
    changed = config.model_copy(update={"learning_rate": 0.5, "pad_token": "unk"})
    assert answer_now(changed, DataQuestion()) is not None


def test_a_template_file_is_a_setting(config: TrainingConfig, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    config = config.model_copy(update={"chat_template": str(template)})
    keep(config, DataQuestion(), [FACT])
    assert answer_now(config, DataQuestion()) is not None
    template.write_text("{{ messages[0] }}")
    assert answer_now(config, DataQuestion()) is None


@pytest.mark.parametrize("is_own", [True, False], ids=["of the model", "of the user"])
def test_rows_hold_for_a_day_where_the_template_writes_the_date(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_own: bool
) -> None:
    file = Path(config.model) / "chat_template.jinja" if is_own else tmp_path / "dated.jinja"
    file.write_text("{{ strftime_now('%d %b %Y') }}{{ messages }}")
    if not is_own:
        config = config.model_copy(update={"chat_template": str(file)})
    settings = tiny_settings()
    of_rows = (DataQuestion(), ROWS, RunQuestion(settings))
    others = (ModelQuestion(), PrecisionQuestion(settings, ("bf16",)))
    for question in (*of_rows, *others):
        keep(config, question, [FACT])
        assert answer_now(config, question) is not None
    monkeypatch.setattr(fingerprinting, "_today", lambda: date(2001, 2, 3))
    assert [answer_now(config, question) for question in of_rows] == [None] * 3
    assert all(answer_now(config, question) is not None for question in others)


def test_rows_hold_on_where_no_template_writes_the_date(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(config, ROWS, [FACT])
    monkeypatch.setattr(fingerprinting, "_today", lambda: date(2001, 2, 3))
    assert answer_now(config, ROWS) is not None


def test_a_broken_link_is_no_file_of_the_model(config: TrainingConfig) -> None:
    (Path(config.model) / "gone.json").symlink_to("nowhere.json")
    keep(config, ModelQuestion(), [FACT])
    assert answer_now(config, ModelQuestion()) is not None


def test_number_formats_are_compared_at_a_learning_rate(config: TrainingConfig) -> None:
    keep(config, PrecisionQuestion(tiny_settings(), ("bf16",)), [FACT])
    for changes in ({"learning_rate": 2e-3}, {"weight_decay": 0.1}):
        question = PrecisionQuestion(tiny_settings(**changes), ("bf16",))
        assert answer_now(config, question) is None
    assert answer_now(config, PrecisionQuestion(tiny_settings(), ("bf16",))) is not None


def with_one_field_more(fact: dict[str, Any]) -> dict[str, Any]:
    return {**fact, "unknown": 1}


def without_its_value(fact: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in fact.items() if name != "value"}


@pytest.mark.parametrize("changed", [with_one_field_more, without_its_value])
def test_a_fact_of_another_version_is_measured_again(
    config: TrainingConfig, tmp_path: Path, changed: Any
) -> None:
    keep(config, DataQuestion(), [FACT])
    remember_run_facts(config, [FACT])
    for file in (tmp_path / "cache" / "facts").iterdir():
        record = json.loads(file.read_text())
        record["facts"] = [changed(fact) for fact in record["facts"]]
        file.write_text(json.dumps(record))
    assert answer_now(config, DataQuestion()) is None
    assert recall_run_facts(config) == ()


def test_other_rows_questions_are_other_subjects(config: TrainingConfig) -> None:
    keep(config, ROWS, [FACT])
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
    keep(config, DeviceQuestion("cpu"), facts)
    found = Facts().adding(answer_now(config, DeviceQuestion("cpu")) or ())
    assert found.number("device.matmul_flops_per_s.fp32") == 1e9
    assert found.number("device.memory_available_bytes") > 1


def test_the_number_of_threads_is_no_name(config: TrainingConfig) -> None:
    name = identify_device("cpu").name.rpartition(",")[0]
    keep(config, DeviceQuestion("cpu"), [Fact("device.name", f"{name}, 999 threads")])
    assert answer_now(config, DeviceQuestion("cpu")) is not None


def test_trials_under_another_number_of_threads_are_not_taken(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(config, trials(1), trial_facts(trials(1), 1))
    monkeypatch.setattr("torch.get_num_threads", lambda: 999)
    assert answer_now(config, trials(1)) is None


def test_facts_of_another_device_are_not_taken(config: TrainingConfig) -> None:
    keep(config, DeviceQuestion("cpu"), [Fact("device.name", "another")])
    assert answer_now(config, DeviceQuestion("cpu")) is None


def test_failures_are_not_remembered(config: TrainingConfig) -> None:
    failed = Fact("trials.failure", "the process died")
    assert keep(config, DataQuestion(), [FACT, failed]) == (FACT, failed)
    assert answer_now(config, DataQuestion()) is None


def test_rows_of_the_hub_are_not_remembered(config: TrainingConfig) -> None:
    config = config.model_copy(update={"dataset": "owner/name"})
    keep(config, DataQuestion(), [FACT])
    assert answer_now(config, DataQuestion()) is None


def trials(*num_rows: int) -> TrialsQuestion:
    return TrialsQuestion(tiny_settings(), tuple(Trial("off", each) for each in num_rows))


def trial_facts(question: TrialsQuestion, *num_rows: int) -> list[Fact]:
    points = [asdict(Trial("off", each)) | {"peak_bytes": 1000} for each in num_rows]
    return [Fact("trials.key", question.key, cost_s=2.0), Fact("trials.points", points)]


def numbers(facts: tuple[Fact, ...] | None) -> list[int]:
    points: Any = Facts().adding(facts or ()).value("trials.points")
    return [point["num_rows"] for point in points]


def test_trials_of_several_plans_are_joined(config: TrainingConfig) -> None:
    first, second = trials(1, 4), trials(8)
    keep(config, first, trial_facts(first, 1, 4))
    recall = Recall(config, Notes())
    found = recall.answer(second, NO_FACTS)
    assert numbers(found) == [1, 4]
    known = Facts().adding(found or ())
    assert recall.answer(second, known) is None
    joined = recall.remember(second, trial_facts(second, 8), known)
    assert numbers(joined) == [1, 4, 8]
    assert sum(fact.cost_s for fact in joined) == 2.0, "what was recalled cost nothing"
    notes = Notes()
    recall = Recall(config, notes)
    assert numbers(recall.answer(first, NO_FACTS)) == [1, 4, 8]
    recall.tell()
    assert notes.texts[0].endswith("which saves 4.0 s")


def test_trials_of_another_key_are_no_reason_to_try_again(config: TrainingConfig) -> None:
    in_fp32, in_bf16 = trials(1), TrialsQuestion(tiny_settings(precision="bf16"), trials(1).trials)
    keep(config, in_fp32, trial_facts(in_fp32, 1))
    known = Facts().adding(trial_facts(in_bf16, 1, 4))
    assert numbers(Recall(config, Notes()).answer(in_fp32, known)) == [1]


def test_rounds_of_a_refreshed_plan_are_kept_together(config: TrainingConfig) -> None:
    first, second = trials(1, 4), trials(8)
    keep(config, first, trial_facts(first, 16))
    found = keep(config, first, trial_facts(first, 1, 4), refresh=True)
    assert numbers(found) == [1, 4]
    found = keep(config, second, trial_facts(second, 8), Facts().adding(found), refresh=True)
    assert numbers(found) == [1, 4, 8]
    assert numbers(answer_now(config, first)) == [1, 4, 8]


def test_a_trial_that_killed_its_process_is_tried_another_time(config: TrainingConfig) -> None:
    question = trials(1, 64)
    key, points = trial_facts(question, 1, 64)
    deadly: Any = replace(points, value=[{**points.value[1], "peak_bytes": None}])  # type: ignore[index]
    assert keep(config, question, [key, deadly]) == (key, deadly)
    assert answer_now(config, question) is None
    both = replace(points, value=[points.value[0], *deadly.value])  # type: ignore[index]
    assert numbers(keep(config, question, [key, both])) == [1, 64]
    assert numbers(answer_now(config, question)) == [1]


def test_the_memory_of_this_process_is_asked_anew(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = trials(1)
    keep(config, question, [*trial_facts(question, 1), Fact("trials.process_bytes", 7)])
    monkeypatch.setattr(resident, "held_bytes", lambda device: 11)

    def process_bytes() -> object:
        return Facts().adding(answer_now(config, question) or ()).value("trials.process_bytes")

    assert process_bytes() == 11
    monkeypatch.setattr(fingerprinting.Fingerprints, "identity", identify_device("cpu"))
    monkeypatch.delitem(sys.modules, "torch")
    assert process_bytes() == 7


def test_what_a_run_left_is_recalled_for_its_method(config: TrainingConfig) -> None:
    assert recall_run_facts(config) == ()
    remember_run_facts(config, [Fact("noise.scale_examples", 40.0)])
    assert [fact.value for fact in recall_run_facts(config)] == [40.0]
    longer = config.model_copy(update={"num_train_epochs": 2.0})
    assert [fact.value for fact in recall_run_facts(longer)] == [40.0]
    for change in ({"method": "full"}, {"completion_only_loss": False}):
        assert recall_run_facts(config.model_copy(update=change)) == ()
    append_row(config)
    assert recall_run_facts(config) == ()


def test_a_search_leaves_what_another_found(config: TrainingConfig) -> None:
    rate = [Fact("tuned.key", "A", cost_s=9.0), Fact("tuned.learning_rate", 3e-4)]
    decay = [Fact("tuned.key", "B", cost_s=9.0), Fact("tuned.weight_decay", 0.1)]
    assert remember_tuned(config, rate) and remember_tuned(config, decay)
    recalled = Facts().adding(recall_tuned(config))
    found = facts_under(recalled, "tuned", "A")
    assert found is not None
    assert [(fact.id, fact.value) for fact in found][1] == ("tuned.learning_rate", 3e-4)
    assert sum(fact.cost_s for fact in recalled) == 0
    assert facts_under(recalled, "tuned", "B") is not None
