"""What a run leaves behind for the next plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.jobs import Memory
from support.runs import read_jsonl, tiny_config

import trimtab
from trimtab.engine.observer import Silent
from trimtab.errors import Interrupted
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.planning.fact import Fact
from trimtab.runs.folder import RunFolder
from trimtab.runs.ledger import Ledger
from trimtab.runs.records import EvaluationRecord, EventRecord, UpdateRecord
from trimtab.workflow import carrying_out
from trimtab.workflow.planning import resolve_config
from trimtab.workflow.recalling import recall_run_facts
from trimtab.workflow.recovering import train_through
from trimtab.workflow.run_facts import gradient_norms, keep_run_facts

SCALE = "noise.scale_examples"
UPDATE = UpdateRecord(1, 0.5, 2.25, 100, 40, 1e-3, 0.7, 1.5, 66.7, 10**9)


@pytest.fixture(autouse=True)
def _empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))


def run_config(folder: Path, model: Path, name: str = "run", **changes: Any) -> dict[str, Any]:
    """24 updates of 8 rows in micro-batches of 2, saved once; nothing is held out or sampled."""
    defaults = {
        "output_dir": str(folder / name),
        "max_steps": 24,
        "per_device_train_batch_size": 2,
        "eval_dataset": "none",
        "report_samples": 0,
    }
    return tiny_config(folder, model, **(defaults | changes))


def measured_events(run: Path) -> list[dict[str, Any]]:
    lines = read_jsonl(run / "events.jsonl")
    return [line for line in lines if line["event"] == "noise scale measured"]


def facts_of_the_next_plan(folder: Path, model: Path, **changes: Any) -> dict[str, Fact]:
    plan = trimtab.plan(run_config(folder, model, "next", **changes), quick=True)
    return {fact.id: fact for fact in plan.facts}


def test_a_finished_run_leaves_its_noise_scale_to_the_next_plan(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    trimtab.train(run_config(tmp_path, tiny_llama_folder))
    (event,) = measured_events(tmp_path / "run")
    assert event["step"] == 24
    assert event["details"]["num_updates"] == 24
    facts = facts_of_the_next_plan(tmp_path, tiny_llama_folder)
    assert facts[SCALE].value == event["details"]["examples"]
    low, high = facts["noise.low_examples"].value, facts["noise.high_examples"].value
    assert isinstance(low, float) and isinstance(high, float)
    assert low <= event["details"]["examples"] <= high
    assert facts["saving.checkpoint_s"].value > 0  # type: ignore[operator]
    last = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    size = sum(file.stat().st_size for file in last.glob("*.safetensors"))
    assert facts["saving.checkpoint_bytes"].value == size
    assert SCALE not in facts_of_the_next_plan(tmp_path, tiny_llama_folder, method="full")

    longer = {"global_batch_size": "auto", "max_steps": -1, "num_train_epochs": 60}
    plan = trimtab.plan(
        run_config(tmp_path, tiny_llama_folder, "longer", **longer),
        quick=True,
    )
    decision = plan.decision("global_batch_size")
    assert decision.origin == "measured"
    assert SCALE in decision.facts


def record_run(
    folder: Path,
    *,
    num_updates: int = 24,
    first_num_examples: int | None = 2,
    save_seconds: Sequence[float] = (),
) -> RunFolder:
    """The records of a run of 8 examples an update, whose noise scale is 6 in every update."""
    run = RunFolder(folder)
    folder.mkdir()
    metrics, events = Ledger(run.metrics_jsonl), Ledger(run.events_jsonl)
    metrics.append(EvaluationRecord(0, 2.0, 100, 1.0).to_json())
    for step in range(1, num_updates + 1):
        norms = {
            "grad_norm": math.sqrt(1 + 6 / 8),
            "num_examples": 8,
            "first_micro_batch_num_examples": first_num_examples,
            "first_micro_batch_grad_norm": None
            if first_num_examples is None
            else math.sqrt(1 + 6 / first_num_examples),
        }
        metrics.append(replace(UPDATE, step=step, **norms).to_json())  # type: ignore[arg-type]
    for seconds in save_seconds:
        details = {"seconds": seconds, "bytes": 500}
        events.append(EventRecord("checkpoint saved", 1, details).to_json())
    return run


def remembered(config: TrainingConfig) -> dict[str, object]:
    return {fact.id: fact.value for fact in recall_run_facts(config)}


def config_of(folder: Path, model: Path) -> TrainingConfig:
    return resolve_config(run_config(folder, model)).config


def test_noise_and_saves_are_read_off_the_records(tmp_path: Path, tiny_llama_folder: Path) -> None:
    config, observer = config_of(tmp_path, tiny_llama_folder), Memory()
    run = record_run(tmp_path / "run", save_seconds=(1.0, 2.0))
    keep_run_facts(run, config, observer, step=24)
    (event,) = observer.events
    assert (event.event, event.step) == ("noise scale measured", 24)
    assert event.details["examples"] == pytest.approx(6)
    assert event.details["num_updates"] == 24
    facts = remembered(config)
    assert facts[SCALE] == event.details["examples"]
    assert facts["saving.checkpoint_s"] == 1.5
    assert facts["saving.checkpoint_bytes"] == 500


def test_a_run_without_a_noise_scale_keeps_the_place_of_one_that_had(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    config, observer = config_of(tmp_path, tiny_llama_folder), Memory()
    whole = record_run(tmp_path / "whole", first_num_examples=None, save_seconds=(3.0,))
    short = record_run(tmp_path / "short", num_updates=19)
    keep_run_facts(whole, config, observer, step=24)
    assert observer.events == []
    assert remembered(config) == {"saving.checkpoint_s": 3.0, "saving.checkpoint_bytes": 500}
    keep_run_facts(record_run(tmp_path / "parts"), config, observer, step=24)
    for other in (whole, short):
        keep_run_facts(other, config, observer, step=24)
    assert SCALE in remembered(config)


def test_records_of_versions_without_norms_are_passed_over(tmp_path: Path) -> None:
    run = record_run(tmp_path / "run", num_updates=3)
    older = UPDATE.to_json()
    for name in ("num_examples", "first_micro_batch_num_examples", "first_micro_batch_grad_norm"):
        del older[name]
    Ledger(run.metrics_jsonl).append(older)
    assert [(one.num_first_examples, one.num_examples) for one in gradient_norms(run)] == [
        (2, 8)
    ] * 3


def test_a_run_that_recorded_nothing_leaves_nothing(
    tmp_path: Path, tiny_llama_folder: Path
) -> None:
    config, observer = config_of(tmp_path, tiny_llama_folder), Memory()
    keep_run_facts(RunFolder(tmp_path / "none"), config, observer, step=0)
    assert observer.events == []
    assert remembered(config) == {}


class StopAfter(Silent):
    """Makes the run believe that a stop was asked for once so many updates are done."""

    def __init__(self, num_updates: int) -> None:
        self.num_updates = num_updates
        self.is_due = False

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        self.is_due = record.step >= self.num_updates


def test_an_interrupted_run_leaves_what_it_had(
    tmp_path: Path, tiny_llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = StopAfter(21)
    through = train_through

    def stopped(session: Any, progress: Any, _: Any) -> None:
        through(session, progress, lambda: observer.is_due)

    with monkeypatch.context() as patched:
        patched.setattr(carrying_out, "train_through", stopped)
        with pytest.raises(Interrupted):
            trimtab.train(run_config(tmp_path, tiny_llama_folder), observer=observer)
    (event,) = measured_events(tmp_path / "run")
    assert (event["step"], event["details"]["num_updates"]) == (21, 21)
    assert SCALE in facts_of_the_next_plan(tmp_path, tiny_llama_folder)

    trimtab.resume(tmp_path / "run")
    (event,) = measured_events(tmp_path / "run")
    assert event["step"] == 24
    facts = facts_of_the_next_plan(tmp_path, tiny_llama_folder)
    assert facts[SCALE].value == event["details"]["examples"]
