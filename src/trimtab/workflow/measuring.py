"""Answers to the questions that take weight updates: what to hand to a measuring process, and the
facts that its answers, or its death, come to."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from trimtab.data.batches import Batching, BatchRow, batch_rows
from trimtab.data.rows import TokenRow
from trimtab.data.sizes import RowLengths, group_size
from trimtab.engine.building import batching
from trimtab.engine.observer import Observer
from trimtab.models.source import ModelSource
from trimtab.planning.fact import Fact
from trimtab.planning.noise import AT_BASE_WEIGHTS, MicroBatchNorms, noise_facts, noise_scale
from trimtab.planning.questions import (
    NoiseScaleQuestion,
    PrecisionQuestion,
    RateRangeQuestion,
    RunQuestion,
    Trial,
    TrialsQuestion,
)
from trimtab.planning.settings import Settings
from trimtab.probes.client import Answer, ProbeDied, asked
from trimtab.probes.fork_server import ForkServer
from trimtab.probes.resident import can_begin_peak, held_bytes
from trimtab.probes.run_sizes import probe_run
from trimtab.probes.selection import (
    first_updates,
    num_computed_tokens,
    precision_rows,
    trial_rows,
)
from trimtab.probes.trials import NUM_UPDATES

MeasuredQuestion = (
    RunQuestion | TrialsQuestion | PrecisionQuestion | RateRangeQuestion | NoiseScaleQuestion
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What updates are measured with: `rows` are the run's training rows, and `server` forks the
    processes that measure, where there is one."""

    source: ModelSource
    rows: Sequence[TokenRow]
    device_name: str
    observer: Observer
    server: ForkServer | None = None


def answer(question: MeasuredQuestion, measured: Measured) -> Iterator[Fact]:
    """The facts listed under the question; a process that dies is a fact too."""
    started = time.perf_counter()
    match question:
        case RunQuestion():
            measured.observer.activity("counting the run's micro-batches")
            yield from probe_run(question, measured.rows, batching(question.settings))
            measured.observer.activity_done()
            return
        case TrialsQuestion():
            facts = _trials(question, measured)
        case PrecisionQuestion():
            facts = _precision(question, measured)
        case RateRangeQuestion():
            facts = _rate_range(question, measured)
        case NoiseScaleQuestion():
            facts = _noise_scale(question, measured)
    measured.observer.activity_done()
    cost_s = time.perf_counter() - started
    key, *others = (replace(fact, device=measured.device_name) for fact in facts)
    yield replace(key, cost_s=cost_s)
    yield from others


def _trials(question: TrialsQuestion, measured: Measured) -> list[Fact]:
    settings = question.settings
    layout = batching(settings)
    chosen = _chosen_rows(question.trials, measured.rows, layout)
    rows, groups = _handed_over(measured.rows, chosen)
    lengths = RowLengths.of(rows)
    points = [
        asdict(trial) | asdict(group_size(lengths, group, layout))
        for trial, group in zip(question.trials, groups, strict=True)
    ]
    requests = [
        {
            "activation_checkpointing": trial.activation_checkpointing,
            "num_micro_batches": trial.num_micro_batches,
            "units": group,
        }
        for trial, group in zip(question.trials, groups, strict=True)
    ]
    device = torch.device(settings.device)
    process_bytes = 0 if device.type == "cuda" else held_bytes(device)
    measured.observer.activity("measuring memory and speed", len(points))
    loaded: Answer = {}
    made: list[dict[str, Any]] = []
    failure: str | None = None
    for together in _in_one_process(requests, settings, device):
        request = _request("trials", settings, measured, {"trials": together})
        due = points[len(made) : len(made) + len(together)]
        answered, done, failure = _tried(request, rows, due, measured)
        loaded = answered or loaded
        made += done
        if failure is not None:
            break
    return _trial_facts(question, process_bytes, loaded, made, failure)


def _tried(
    request: Mapping[str, Any],
    rows: Sequence[TokenRow],
    due: Sequence[Mapping[str, Any]],
    measured: Measured,
) -> tuple[Answer, list[dict[str, Any]], str | None]:
    """What one process told of its loading, the points that it made of those due, why it died.

    The first is empty where it died of loading, which is the death of no trial.
    """
    loaded: Answer = {}
    made: list[dict[str, Any]] = []
    try:
        with asked(request, rows, server=measured.server) as answers:
            loaded = next(answers)
            for outcome in answers:
                made.append({**due[len(made)], **outcome})
                measured.observer.advanced(1)
    except ProbeDied as died:
        if loaded and died.is_deadly and len(made) < len(due):
            made.append({**due[len(made)], "update_s": [], "peak_bytes": None})
        return loaded, made, died.reason
    return loaded, made, None


def _in_one_process(
    requests: list[dict[str, Any]], settings: Settings, device: torch.device
) -> list[list[dict[str, Any]]]:
    """On a CPU each trial of a whole model has a process of its own.

    The optimizer's state, which a trial lets go and the next takes anew, leaves the process's
    memory in pieces that a run's is not in: a peak was 7% too high for it. So has each of any
    model where a peak holds all that came before it.
    """
    if device.type == "cpu" and (settings.method == "full" or not can_begin_peak(device)):
        return [[request] for request in requests]
    return [requests]


def _trial_facts(
    question: TrialsQuestion,
    process_bytes: int,
    loaded: Answer,
    points: list[dict[str, Any]],
    failure: str | None,
) -> list[Fact]:
    method = f"{NUM_UPDATES} updates by the training step, in a process of its own, at rate 0"
    facts = [
        Fact("trials.key", question.key, method=method),
        Fact("trials.process_bytes", process_bytes, "bytes", method="the planning process"),
    ]
    if not points:
        told = failure or "no trial was asked for"
        return [*facts, Fact("trials.failure", told, method=method)]
    if not loaded["is_peak_reset"]:
        method += "; the peak could not be reset, so each holds that of loading the model"
    if failure is not None:
        method += f"; it ended early: {failure}"
    sizes = {name: loaded[name] for name in ("base_bytes", "loaded_bytes")}
    facts += [Fact(f"trials.{name}", size, "bytes", method=method) for name, size in sizes.items()]
    return [*facts, Fact("trials.points", points, method=method)]


def _chosen_rows(
    trials: Sequence[Trial], rows: Sequence[TokenRow], layout: Batching
) -> list[list[BatchRow]]:
    units = batch_rows(rows, layout)
    return [trial_rows(rows, units, trial) for trial in trials]


def _precision(question: PrecisionQuestion, measured: Measured) -> list[Fact]:
    # Padding to max_length would compute many times the tokens for the same gradient.
    is_padded = question.settings.padding == "max_length"
    settings = replace(question.settings, padding="longest") if is_padded else question.settings
    layout = batching(settings)
    rows = precision_rows(measured.rows, layout)
    indices = list(range(len(rows)))
    request = {
        "precisions": list(question.precisions),
        "units": [indices] if settings.packing else [[index] for index in indices],
    }
    num_tokens = num_computed_tokens(rows, layout)
    method = f"{len(rows)} rows of {num_tokens:,} tokens together, against fp32 on the same"
    facts = [Fact("precision.key", question.key, method=method)]
    measured.observer.activity("comparing number formats", len({"fp32", *question.precisions}))
    asking = _request("precision", settings, measured, request)
    try:
        with asked(asking, rows, server=measured.server) as answers:
            for outcome in answers:
                facts += _precision_facts(outcome, method)
                measured.observer.advanced("precision" in outcome)
    except ProbeDied as died:
        facts.append(Fact("precision.failure", died.reason, method=method))
    return facts


def _precision_facts(outcome: Answer, method: str) -> Iterator[Fact]:
    if "lost_update_share" in outcome:
        for precision, share in outcome["lost_update_share"].items():
            yield Fact(
                f"precision.lost_update_share.{precision}",
                share,
                method=f"{method}; the first update of the weights that get a gradient",
            )
        return
    precision = outcome["precision"]
    best = f"{method}; the better of two updates, or the only one of a much slower format"
    yield Fact(f"precision.update_s.{precision}", outcome["update_s"], "s", method=best)
    yield Fact(f"precision.overflows.{precision}", outcome["overflows"], method=method)
    for name in ("gradient_cosine", "gradient_norm_ratio"):
        if outcome[name] is not None:
            yield Fact(f"precision.{name}.{precision}", outcome[name], method=method)


def _rate_range(question: RateRangeQuestion, measured: Measured) -> list[Fact]:
    settings = question.settings
    chosen = first_updates(measured.rows, batching(settings))
    rows, groups = _handed_over(measured.rows, chosen)
    request = {"micro_batches": groups, "rates": list(question.rates)}
    num_rows = sum(len(group) for group in groups)
    method = f"one update at each rate, on the {num_rows} rows of the run's first update"
    measured.observer.activity("testing learning rates", len(question.rates))
    losses: list[list[float | None]] = []
    diverging_rate: float | None = None
    key = Fact("rate_range.key", question.key, method=method)
    asking = _request("rate range", settings, measured, request)
    try:
        with asked(asking, rows, server=measured.server) as answers:
            for outcome in answers:
                rate, loss = outcome["learning_rate"], outcome["loss"]
                losses.append([rate, loss if math.isfinite(loss) else None])
                diverging_rate = rate if outcome["diverged"] else None
                measured.observer.advanced(1)
    except ProbeDied as died:
        return [key, Fact("rate_range.failure", died.reason, method=method)]
    return [
        key,
        Fact("rate_range.losses", losses, "[rate, nats a trainable token]", method=method),
        Fact("rate_range.diverging_rate", diverging_rate, method=method),
    ]


def _noise_scale(question: NoiseScaleQuestion, measured: Measured) -> list[Fact]:
    key = Fact("noise.key", question.key, method=AT_BASE_WEIGHTS)
    num_needed = question.num_updates * question.num_examples
    if len(measured.rows) < num_needed:
        told = f"it takes {num_needed:,} rows, each seen once, and there are {len(measured.rows):,}"
        return [key, Fact("noise.failure", told, method=AT_BASE_WEIGHTS)]
    settings = _in_groups_of_examples(question)
    chosen = first_updates(measured.rows, batching(settings), question.num_updates)
    rows, groups = _handed_over(measured.rows, chosen)
    expected = "" if question.expected_s is None else f", about {question.expected_s:.0f} s"
    measured.observer.noted(
        f"the gradient noise scale takes {question.num_updates} updates of "
        f"{question.num_examples} rows{expected}; none is applied"
    )
    measured.observer.activity("probing the gradient noise scale", question.num_updates)
    norms: list[MicroBatchNorms] = []
    request = _request("noise scale", settings, measured, {"micro_batches": groups})
    try:
        with asked(request, rows, server=measured.server) as answers:
            for each in answers:
                norms.append(MicroBatchNorms(**each))
                measured.observer.advanced(1)
    except ProbeDied as died:
        return [key, Fact("noise.failure", died.reason, method=AT_BASE_WEIGHTS)]
    return [key, *_noise_facts(norms)]


def _in_groups_of_examples(question: NoiseScaleQuestion) -> Settings:
    """Neither packing nor padding changes a gradient; padding only computes more for it."""
    settings = question.settings
    padding = "none" if settings.packing else settings.padding
    return replace(
        settings,
        packing=False,
        padding="longest" if padding == "max_length" else padding,
        per_device_train_batch_size=question.num_micro_batch_examples,
        gradient_accumulation_steps=question.num_examples // question.num_micro_batch_examples,
    )


def _noise_facts(norms: Sequence[MicroBatchNorms]) -> tuple[Fact, ...]:
    scale = noise_scale(norms)
    if scale is not None:
        return noise_facts(scale, AT_BASE_WEIGHTS)
    told = (
        f"in {len(norms)} updates of {norms[0].num_examples} rows the gradient is lost in its "
        "noise, the 90% interval of its square includes 0"
    )
    return (
        Fact("noise.num_updates", len(norms), "updates", method=AT_BASE_WEIGHTS),
        Fact("noise.unidentified", told, method=AT_BASE_WEIGHTS),
    )


def _handed_over(
    rows: Sequence[TokenRow], groups: Sequence[Sequence[BatchRow]]
) -> tuple[list[TokenRow], list[list[list[int]]]]:
    """The rows that the groups name, each once, and the groups by their new indices."""
    place: dict[int, int] = {}
    for group in groups:
        for unit in group:
            for index in unit:
                place.setdefault(index, len(place))
    moved = [[[place[index] for index in unit] for unit in group] for group in groups]
    return [rows[index] for index in place], moved


def _request(
    question: str, settings: Settings, measured: Measured, details: Mapping[str, Any]
) -> dict[str, Any]:
    source = measured.source
    return {
        "question": question,
        "settings": asdict(settings),
        "source": {
            "name": source.name,
            "folder": str(source.folder),
            "trust_remote_code": source.trust_remote_code,
        },
        "num_threads": torch.get_num_threads(),
        **details,
    }
