"""What the page says of a run first: what it was, how it stands, what it came to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from trimtab.planning.plan import Plan
from trimtab.report.collect import RunRecord
from trimtab.report.words import (
    bytes_text,
    counted,
    float_text,
    seconds_text,
)
from trimtab.runs.records import RunSummary

Tone = Literal["good", "going", "bad"]


@dataclass(frozen=True, slots=True)
class Status:
    """How the run stands: one word, and the sentence that says what follows from it."""

    word: str
    sentence: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Figure:
    """A headline number: `label`, `value`, and what stands under it."""

    label: str
    value: str
    note: str = ""


def title(record: RunRecord) -> str:
    """What was trained on what."""
    if record.plan is None:
        return record.run.root.name
    model = _last_part(_decided(record.plan, "model"))
    dataset = _last_part(_decided(record.plan, "dataset"))
    return f"{model} on {dataset}"


def method_sentence(plan: Plan) -> str:
    """The method, the length and the precision of a plan in one line."""
    method = _decided(plan, "method")
    how = f"LoRA of rank {_decided(plan, 'lora_r')}" if method == "lora" else "All weights"
    return (
        f"{how}, {counted(plan.predictions.num_steps, 'update')} of "
        f"{counted(_decided(plan, 'global_batch_size'), 'row')}, "
        f"{_decided(plan, 'precision')} on {_decided(plan, 'device')}"
    )


def status(record: RunRecord) -> Status:
    """The run's state in plain words."""
    summary = record.summary
    if summary is None:
        return _not_begun(record)
    reason = _sentence(summary.stopped_by or "")
    updates = _updates_of(record)
    root = record.run.root
    match summary.status:
        case "done":
            return Status("Finished", f"{_sentence(f'{updates} done')} {_kept(record)}", "good")
        case "stopped":
            return Status(
                "Stopped",
                f"The run stopped itself after {updates}. {reason} {_handed_over(summary)}",
                "bad",
            )
        case "interrupted":
            return Status(
                "Interrupted",
                f"The run was asked to stop, after {updates}. Go on with: `trimtab resume {root}`",
                "going",
            )
        case "failed":
            return Status(
                "Failed",
                f"The run broke off after {updates}. {reason} {_handed_over(summary)}",
                "bad",
            )
        case "running" if record.is_being_written:
            return Status("Running", _sentence(f"{updates} done so far"), "going")
        case "running":
            return Status(
                "Cut off",
                f"The process ended without a word after {updates}: it was killed, or the machine "
                f"went down. Go on with: `trimtab resume {root}`",
                "bad",
            )


def headline(record: RunRecord) -> tuple[Figure, ...]:
    """Held-out loss, time, memory and speed, as far as they are known."""
    summary = record.summary
    if summary is None:
        return ()
    if summary.status == "running":
        return _headline_so_far(record)
    figures = []
    loss = _loss_figure(summary.base_eval_loss, summary.eval_loss)
    if loss is not None:
        figures.append(loss)
    elif summary.train_loss is not None:
        figures.append(
            Figure("Training loss", float_text(summary.train_loss), "nats per trainable token")
        )
    if summary.seconds is not None:
        figures.append(
            Figure("Time", seconds_text(summary.seconds), counted(summary.num_steps, "update"))
        )
    if summary.peak_memory_bytes:
        figures.append(Figure("Peak memory", bytes_text(summary.peak_memory_bytes)))
    if summary.tokens_per_s is not None:
        figures.append(
            Figure(
                "Speed",
                f"{summary.tokens_per_s:,.0f} tokens/s",
                f"{counted(summary.num_tokens, 'token')} in all",
            )
        )
    return tuple(figures)


def _headline_so_far(record: RunRecord) -> tuple[Figure, ...]:
    """From the ledgers: a summary is written when a run begins and when it ends."""
    figures = []
    by_step = {one.step: one.eval_loss for one in record.evaluations}
    latest = next((loss for step, loss in reversed(by_step.items()) if step > 0), None)
    loss = _loss_figure(by_step.get(0), latest)
    if loss is not None:
        figures.append(loss)
    if record.updates:
        peak = max(one.peak_memory_bytes for one in record.updates)
        figures.append(Figure("Latest training loss", float_text(record.updates[-1].loss)))
        figures.append(Figure("Peak memory", bytes_text(peak), "so far"))
    return tuple(figures)


def _not_begun(record: RunRecord) -> Status:
    if record.is_being_written:
        return Status("Starting", "The first update is still to come.", "going")
    return Status("Not begun", "The run did not come to its first update.", "bad")


def _handed_over(summary: RunSummary) -> str:
    if summary.result is None:
        return "No weights were handed over."
    return f"{summary.result}/ holds weights of the run."


def _kept(record: RunRecord) -> str:
    summary = record.summary
    if summary is None or summary.result is None:
        return ""
    if summary.best_step is None or summary.eval_loss is None:
        return f"{summary.result}/ holds the last weights; nothing was held out to compare them by."
    kept = f"{summary.result}/ holds the weights of update {summary.best_step:,}"
    if summary.base_eval_loss is not None and not summary.eval_loss < summary.base_eval_loss:
        return (
            f"{kept}, the best of the run by held-out loss, and yet no better on held-out rows "
            "than the model before training."
        )
    return f"{kept}, the best by held-out loss."


def _updates_of(record: RunRecord) -> str:
    summary = record.summary
    last_step = record.updates[-1].step if record.updates else 0
    num_done = last_step if summary is None or summary.status == "running" else summary.num_steps
    if record.plan is None:
        return counted(num_done, "update")
    num_planned = record.plan.predictions.num_steps
    if num_done == num_planned:
        return f"all {counted(num_done, 'update')}" if num_done > 1 else "the one update"
    return f"{num_done:,} of {counted(num_planned, 'update')}"


def _loss_figure(before: float | None, after: float | None) -> Figure | None:
    if before is None and after is None:
        return None
    if before is None or after is None:
        when = "before training" if after is None else "after training"
        value = before if after is None else after
        assert value is not None
        return Figure("Held-out loss", _loss_text(value), f"{when}, nats per trainable token")
    change = f", {_change_text((after - before) / before)}" if _comparable(before, after) else ""
    perplexities = " → ".join(_perplexity_text(loss) for loss in (before, after))
    return Figure(
        "Held-out loss",
        f"{_loss_text(before)} → {_loss_text(after)}",
        f"nats per trainable token{change}; perplexity {perplexities}",
    )


def _change_text(share: float) -> str:
    """`−12.3%`, `+4.0%`."""
    return f"{share:+.1%}".replace("-", "−")


def _comparable(before: float, after: float) -> bool:
    return math.isfinite(before) and math.isfinite(after) and before > 0


def _loss_text(loss: float) -> str:
    return f"{loss:.4f}" if math.isfinite(loss) else str(loss)


def _perplexity_text(loss: float) -> str:
    return float_text(math.exp(loss)) if loss < 50 else "beyond e⁵⁰"


def _decided(plan: Plan, name: str) -> Any:
    return plan.decision(name).value


def _last_part(path: str) -> str:
    return PurePath(path).name or path


def _sentence(text: str) -> str:
    stripped = text.strip()
    if not stripped:
        return ""
    ended = stripped if stripped[-1] in ".!?" else f"{stripped}."
    return ended[0].upper() + ended[1:]
