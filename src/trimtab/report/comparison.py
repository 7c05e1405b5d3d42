"""What the plan predicted beside what the run came to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from trimtab.report.collect import RunRecord
from trimtab.report.words import bytes_text, seconds_text

NEAR = 0.005
"""A smaller share than this is no difference to a reader of whole percents."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One quantity, in the unit that `shown` writes; None where a side is not known.

    `is_bound`: the prediction is the most that it may come to. `missing` says why there is no
    actual figure.
    """

    quantity: str
    predicted: float | None
    actual: float | None
    shown: Callable[[float], str]
    missing: str
    is_bound: bool = False

    @property
    def error(self) -> float | None:
        """(predicted − actual) ÷ actual; None where either is not known."""
        if self.predicted is None or not self.actual:
            return None
        return (self.predicted - self.actual) / self.actual

    @property
    def predicted_text(self) -> str:
        return "" if self.predicted is None else self.shown(self.predicted)

    @property
    def actual_text(self) -> str:
        return "" if self.actual is None else self.shown(self.actual)

    @property
    def error_text(self) -> str:
        """`+4%`, `−41%`, `0%`; empty where there is none, and for a bound."""
        if self.error is None or self.is_bound:
            return ""
        return "0%" if abs(self.error) < NEAR else f"{self.error:+.0%}".replace("-", "−")

    @property
    def sentence(self) -> str:
        if self.predicted is None:
            return "The plan did not predict it."
        if self.error is None or self.actual is None:
            return self.missing
        if self.is_bound:
            share = abs(self.predicted - self.actual) / self.predicted
            if self.actual <= self.predicted:
                return f"Held: the run stayed {share:.0%} under it."
            return f"Outgrown by {share:.0%}."
        if abs(self.error) < NEAR:
            return "As predicted."
        return f"Predicted {abs(self.error):.0%} too {'high' if self.error > 0 else 'low'}."


def comparisons(record: RunRecord) -> tuple[Comparison, ...]:
    """Memory, time and tokens; none where the run has no plan or made no update."""
    if record.plan is None or not record.updates:
        return ()
    predicted = record.plan.predictions
    peak = _peak_memory_bytes(record)
    timed = [one.seconds for one in record.updates[1:]]
    summary = record.summary
    is_done = summary is not None and summary.status == "done"
    no_peak = "The run's memory was not recorded."
    return (
        Comparison("peak memory", predicted.peak_memory_bytes, peak, bytes_text, no_peak),
        Comparison(
            "worst case of memory",
            predicted.worst_case_memory_bytes,
            peak,
            bytes_text,
            no_peak,
            is_bound=True,
        ),
        Comparison(
            "seconds an update",
            predicted.step_time_s,
            fmean(timed) if timed else None,
            seconds_text,
            "No update was timed: the first one warms up.",
        ),
        Comparison(
            "time in all",
            predicted.total_time_s,
            summary.seconds if summary is not None and is_done else None,
            seconds_text,
            "The run did not come to its end.",
        ),
        Comparison(
            "tokens an update",
            predicted.tokens_per_step,
            math.fsum(one.num_tokens for one in record.updates) / len(record.updates),
            lambda number: f"{number:,.0f}",
            "",
        ),
    )


def verdict(rows: Sequence[Comparison]) -> str:
    """How right the plan was, in one sentence; empty where nothing can be compared."""
    errors = {one.quantity: one for one in rows if not one.is_bound and one.error is not None}
    if not errors:
        return ""
    worst = max(errors.values(), key=lambda one: abs(one.error or 0.0))
    if worst.error_text == "0%":
        return "The run came to what was predicted."
    return (
        f"The prediction that was furthest off is {worst.quantity}: {worst.predicted_text} "
        f"predicted, {worst.actual_text} measured ({worst.error_text})."
    )


def _peak_memory_bytes(record: RunRecord) -> int | None:
    recorded = record.summary.peak_memory_bytes if record.summary is not None else 0
    return max(recorded, *(one.peak_memory_bytes for one in record.updates)) or None
