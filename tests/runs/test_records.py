"""Every record reads back equal from its JSON."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from trimtab.runs.records import (
    DataRecord,
    EvaluationRecord,
    EventRecord,
    RunSummary,
    Sample,
    Segment,
    UpdateRecord,
)

UPDATE = UpdateRecord(3, 0.5, 2.25, 100, 40, 1e-3, 0.7, 1.5, 66.7, 10**9, 16, 4, 1.4)
DATA = DataRecord(
    format="prompt_completion",
    format_because="columns prompt and completion",
    template="model",
    template_because="the model brings one",
    templated=True,
    num_rows=10,
    num_bad_rows=1,
    num_duplicate_rows=2,
    num_duplicates_of_held_out=1,
    num_train_examples=7,
    num_eval_examples=2,
    num_tokens=700,
    num_trainable_tokens=300,
    num_truncated=1,
    num_tokens_cut=50,
    num_trainable_tokens_cut=5,
    num_dropped=0,
    histogram_edges=(0, 64, 128),
    histogram_counts=(4, 6),
    examples=((Segment("Q", False), Segment("A", True)),),
)
SUMMARY = RunSummary(
    status="done",
    run="runs/x",
    num_steps=60,
    num_tokens=6000,
    train_loss=1.5,
    eval_loss=1.25,
    base_eval_loss=2.0,
    tokens_per_s=100.0,
    peak_memory_bytes=10**9,
    stopped_by=None,
    decisions_changed=("precision",),
    best_step=50,
    seconds=61.5,
    result="adapter",
    versions={"torch": "2.13.0"},
)


@pytest.mark.parametrize(
    "record",
    [
        UPDATE,
        EvaluationRecord(0, 2.5, 1000, 3.25),
        EventRecord("update skipped", 4, {"row_ids": [1, 2], "grad_norm": 3.5}),
        DATA,
        Sample("Q", "A", "b", None),
        SUMMARY,
    ],
    ids=lambda record: type(record).__name__,
)
def test_reads_back_equal(record: Any) -> None:
    text = json.dumps(record.to_json(), allow_nan=False)
    assert type(record).from_json(json.loads(text)) == record


def test_an_update_of_a_version_without_a_noise_scale_still_loads() -> None:
    older = UPDATE.to_json()
    for name in ("num_examples", "first_micro_batch_num_examples", "first_micro_batch_grad_norm"):
        del older[name]
    record = UpdateRecord.from_json(older)
    assert (record.num_examples, record.first_micro_batch_grad_norm) == (None, None)
    assert record.peak_memory_bytes == UPDATE.peak_memory_bytes


def test_a_summary_keeps_a_loss_that_is_not_finite() -> None:
    bad = RunSummary(**{**SUMMARY.to_json(), "eval_loss": math.inf, "train_loss": math.nan})
    record = json.loads(json.dumps(bad.to_json(), allow_nan=False))
    assert (record["eval_loss"], record["train_loss"]) == ("Infinity", "NaN")
    back = RunSummary.from_json(record)
    assert back.eval_loss == math.inf
    assert back.train_loss is not None and math.isnan(back.train_loss)


def test_an_event_tells_its_time_in_utc() -> None:
    event = EventRecord("checkpoint saved", 5)
    time = datetime.fromisoformat(event.time)
    assert time.tzinfo == UTC
    assert abs((datetime.now(UTC) - time).total_seconds()) < 60


def test_another_shape_is_refused() -> None:
    with pytest.raises(TypeError):
        UpdateRecord.from_json({"step": 1})
    with pytest.raises(KeyError):
        DataRecord.from_json({"format": "text"})
