"""A run folder as a run leaves it, small and made by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.planning.decision import Alternative, Decision, Origin
from trimtab.planning.fact import Fact
from trimtab.planning.plan import Plan, Predictions
from trimtab.runs.atomic import write_json, write_text
from trimtab.runs.folder import RunFolder, create_run
from trimtab.runs.ledger import Ledger
from trimtab.runs.records import (
    DataRecord,
    EvaluationRecord,
    EventRecord,
    RunSummary,
    Sample,
    Segment,
    UpdateRecord,
)

NUM_STEPS = 60

CONFIG_YAML = """\
model: models/SmolLM2-135M-Instruct  # file, config.yaml:1
dataset: data/gsm8k.jsonl  # file, config.yaml:2
learning_rate: 0.0004  # command line, --learning-rate
# overruled: max_steps: 500  # file, config.yaml:5; epochs win where one layer sets both
"""


def decision(name: str, value: Any, origin: Origin, because: str, **more: Any) -> Decision:
    return Decision(name, value, origin, because, **more)


PLAN = Plan(
    decisions=(
        decision("model", "models/SmolLM2-135M-Instruct", "user", "set in config.yaml:1"),
        decision("method", "lora", "default", "fits small and medium datasets"),
        decision("dataset", "data/gsm8k.jsonl", "user", "set in config.yaml:2"),
        decision("max_length", 512, "measured", "the longest row has 498 tokens"),
        decision(
            "global_batch_size",
            16,
            "rule",
            "150 updates or more, and `num_train_epochs` is 1",
            limits="the gradient noise scale was not measured",
        ),
        decision("learning_rate", 4e-4, "user", "set by --learning-rate"),
        decision("max_grad_norm", 1.0, "default", "longer gradients are scaled down"),
        decision(
            "precision",
            "bf16",
            "measured",
            "native, 4.4× fp32's rate",
            facts=("device.matmul_flops_per_s.bf16",),
            alternatives=(Alternative("fp16", "its range needs loss scaling"),),
        ),
        decision("device", "cpu", "measured", "no GPU is there"),
        decision("memory_limit", 13 * 2**30, "rule", "nine tenths of what is free"),
        decision("lora_r", 16, "rule", "3.6% of the model's weights"),
    ),
    derived={"num_train_steps": NUM_STEPS},
    facts=(
        Fact("device.matmul_flops_per_s.bf16", 9.87e10, "FLOP/s", 1e9, "cpu", "best of 5", 0.5),
        Fact("data.length_quantiles", list(range(201)), "tokens", method="all rows"),
    ),
    predictions=Predictions(
        num_steps=NUM_STEPS,
        tokens_per_step=1000.0,
        peak_memory_bytes=2**30,
        worst_case_memory_bytes=7 * 2**28,
        step_time_s=2.0,
        total_time_s=130.0,
    ),
    warnings=("the row in `gsm8k.jsonl:7` is a duplicate",),
    not_measured=("where the learning rate starts to diverge on this run",),
)

DATA = DataRecord(
    format="prompt_completion",
    format_because="the rows have `question` and `answer`",
    template="model",
    template_because="the tokenizer has a template",
    templated=True,
    num_rows=1000,
    num_bad_rows=2,
    num_duplicate_rows=3,
    num_duplicates_of_held_out=1,
    num_train_examples=949,
    num_eval_examples=50,
    num_tokens=190_000,
    num_trainable_tokens=95_000,
    num_truncated=4,
    num_tokens_cut=7_000,
    num_trainable_tokens_cut=5_000,
    num_dropped=1,
    histogram_edges=(0, 128, 256, 384, 512),
    histogram_counts=(100, 500, 300, 100),
    examples=((Segment("<|im_start|>user\nWhat is 2+3?", False), Segment("It is 5.", True)),),
)

SAMPLES = (
    Sample("What is 2 + 3?", "5", "Two and three are numbers.", "5"),
    Sample("What is 4 + 4?", "8", "", None),
)

SUMMARY = RunSummary(
    status="done",
    run="runs/mine",
    num_steps=NUM_STEPS,
    num_tokens=60_000,
    train_loss=1.25,
    eval_loss=1.0,
    base_eval_loss=2.0,
    tokens_per_s=512.0,
    peak_memory_bytes=3 * 2**29,
    stopped_by=None,
    best_step=45,
    seconds=260.0,
    result="adapter",
    versions={"torch": "2.13.0"},
)


def updates(num_steps: int = NUM_STEPS) -> list[UpdateRecord]:
    """A falling loss with a ripple; the first update is slower, as a first one is."""
    return [
        UpdateRecord(
            step=step,
            epoch=step / NUM_STEPS,
            loss=1 + math.exp(-step / 20) + 0.05 * math.sin(step),
            num_tokens=1100 if step % 2 else 900,
            num_trainable_tokens=500 if step % 2 else 400,
            learning_rate=4e-4 * (1 - step / NUM_STEPS),
            grad_norm=0.5 + 1 / step,
            seconds=10.0 if step == 1 else 4.0,
            tokens_per_s=250.0,
            peak_memory_bytes=2**30,
        )
        for step in range(1, num_steps + 1)
    ]


def evaluations() -> list[EvaluationRecord]:
    return [
        EvaluationRecord(step, loss, 5000, 3.0)
        for step, loss in ((0, 2.0), (15, 1.5), (30, 1.2), (45, 1.0), (60, 1.1))
    ]


EVENTS = (
    EventRecord("checkpoint saved", 30, {"folder": "step-000030", "seconds": 0.25}),
    EventRecord("update skipped", 41, {"loss": math.inf, "row_ids": list(range(16))}),
)


def write_run(
    root: Path,
    *,
    plan: Plan = PLAN,
    data: DataRecord = DATA,
    samples: Sequence[Sample] = SAMPLES,
    events: Sequence[EventRecord] = EVENTS,
    num_steps: int = NUM_STEPS,
    config_yaml: str = CONFIG_YAML,
    **summary: Any,
) -> RunFolder:
    """The folder of a whole run; `summary` replaces fields of `SUMMARY`."""
    run = create_run(root)
    write_text(run.config_yaml, config_yaml)
    write_json(run.plan_json, plan.to_json())
    write_json(run.data_json, data.to_json())
    write_json(run.samples_json, [sample.to_json() for sample in samples])
    metrics = Ledger(run.metrics_jsonl)
    for record in (*updates(num_steps), *(one for one in evaluations() if one.step <= num_steps)):
        metrics.append(record.to_json())
    for event in events:
        Ledger(run.events_jsonl).append(event.to_json())
    write_json(run.summary_json, replace(SUMMARY, num_steps=num_steps, **summary).to_json())
    return run
