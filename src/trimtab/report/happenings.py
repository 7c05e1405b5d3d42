"""Events of a run in words, for the progress line and the page."""

from __future__ import annotations

from trimtab.report.words import counted, value_text
from trimtab.runs.records import EventRecord, RunSummary

NUM_ROWS_NAMED = 3


def event_text(event: EventRecord) -> str:
    """What happened, beside the event's name; empty where the name says it all."""
    match event.details:
        case {"hyperparameter": name, "from": before, "to": after, "because": because}:
            told = f"{value_text(name)} {value_text(before)} → {value_text(after)}: {because}"
        case {"answer": answer, "because": because, "num_updates_passed_over": int(number)}:
            told = f"{answer}: {because}; the rows of {counted(number, 'update')} are passed over"
        case {"fault": fault, "reason": reason}:
            told = f"{fault}: {reason}"
        case _:
            told = ", ".join(
                f"{name} {value_text(value)}"
                for name, value in event.details.items()
                if name not in {"row_ids", "rows"}
            )
    return told + _rows_text(event)


def spikes_text(summary: RunSummary) -> str:
    """What loss spikes cost; empty where there was none."""
    if not summary.num_skipped_updates:
        return ""
    told = f"the rows of {counted(summary.num_skipped_updates, 'update')} passed over"
    if summary.num_rewinds:
        told += f", after going back {_times(summary.num_rewinds)}"
    return told


def _times(number: int) -> str:
    return "once" if number == 1 else counted(number, "time")


def _rows_text(event: EventRecord) -> str:
    """The first few rows by file and line."""
    match event.details:
        case {"rows": [*rows]} if rows:
            named = ", ".join(value_text(row) for row in rows[:NUM_ROWS_NAMED])
            more = len(rows) - NUM_ROWS_NAMED
            return f"; rows {named}" + (f" and {more:,} more" if more > 0 else "")
    return ""
