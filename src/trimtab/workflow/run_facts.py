"""What a run found out in passing, kept for the next plan of the same model, data and method."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.engine.observer import Observer
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.planning.fact import Fact
from trimtab.planning.noise import (
    OVER_A_RUN,
    GradientNorms,
    NoiseScale,
    noise_facts,
    noise_scale,
)
from trimtab.runs.folder import RunFolder
from trimtab.runs.ledger import Ledger
from trimtab.runs.records import EventRecord, UpdateRecord
from trimtab.workflow.recalling import recall_run_facts, remember_run_facts


def keep_run_facts(
    run: RunFolder, config: TrainingConfig, observer: Observer, *, step: int
) -> None:
    """Measure what the run's records hold after update `step`, tell it and remember it.

    A run that shows no noise scale does not take the place of one that did.
    """
    scale = noise_scale(gradient_norms(run))
    saving = _saving_facts(run)
    if scale is not None:
        observer.happened(_event(scale, step))
        remember_run_facts(config, (*noise_facts(scale, OVER_A_RUN), *saving))
    elif saving and not recall_run_facts(config):
        remember_run_facts(config, saving)


def gradient_norms(run: RunFolder) -> list[GradientNorms]:
    """The norms at two batch sizes of each update that had more than one micro-batch."""
    lines = Ledger(run.metrics_jsonl).read().records
    records = [UpdateRecord.from_json(line) for line in lines if "loss" in line]
    return [
        GradientNorms(
            record.first_micro_batch_num_examples,
            record.num_examples,
            record.first_micro_batch_grad_norm,
            record.grad_norm,
        )
        for record in records
        if record.num_examples is not None
        and record.first_micro_batch_num_examples is not None
        and record.first_micro_batch_grad_norm is not None
    ]


def _saving_facts(run: RunFolder) -> Sequence[Fact]:
    """Seconds and size of a checkpoint, as means over the run's; nothing without any."""
    events = map(EventRecord.from_json, Ledger(run.events_jsonl).read().records)
    saves = [
        (float(event.details["seconds"]), int(event.details["bytes"]))
        for event in events
        if event.event == "checkpoint saved" and {"seconds", "bytes"} <= event.details.keys()
    ]
    if not saves:
        return ()
    mean_s, mean_bytes = (sum(values) / len(saves) for values in zip(*saves, strict=True))
    method = f"mean over a run's checkpoints ({len(saves)})"
    return (
        Fact("saving.checkpoint_s", mean_s, "s", method=method),
        Fact("saving.checkpoint_bytes", round(mean_bytes), "bytes", method=method),
    )


def _event(scale: NoiseScale, step: int) -> EventRecord:
    return EventRecord(
        "noise scale measured",
        step,
        {
            "examples": scale.examples,
            "low_examples": scale.low_examples,
            "high_examples": scale.high_examples,
            "num_updates": scale.num_updates,
        },
    )
