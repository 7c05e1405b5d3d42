"""How a run's end is shown: the page, the JSON, the samples and the summary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.cli.common import complain, print_json
from trimtab.errors import TrimtabError

if TYPE_CHECKING:
    from trimtab.cli.progress import ConsoleObserver
    from trimtab.runs.records import RunSummary

RESULT_KEYS = (
    "run",
    "num_steps",
    "num_tokens",
    "train_loss",
    "eval_loss",
    "base_eval_loss",
    "tokens_per_s",
    "peak_memory_bytes",
    "stopped_by",
    "decisions_changed",
    "num_skipped_updates",
    "num_rewinds",
)


@contextmanager
def told_in_any_case(observer: ConsoleObserver, json_wanted: bool) -> Iterator[None]:
    """The page, and the JSON, of a run that stopped too; one that never began has neither."""
    from trimtab.runs.folder import RunFolder
    from trimtab.workflow.records import read_summary

    try:
        yield
    except TrimtabError:
        if observer.run is not None and (summary := read_summary(RunFolder(observer.run))):
            _write_page(observer.run)
            if json_wanted:
                print_json(_result(summary))
        raise


def show_end(summary: RunSummary, json_wanted: bool) -> None:
    from trimtab.cli.console import Consoles
    from trimtab.cli.screens import show_samples, show_summary
    from trimtab.report.collect import collect

    page = _write_page(Path(summary.run))
    if json_wanted:
        print_json(_result(summary))
        return
    console, record = Consoles().out, collect(Path(summary.run))
    show_samples(console, record)
    show_summary(console, summary, record, None if page is None else str(page))


def _write_page(folder: Path) -> Path | None:
    """The page's path; None, told on stderr, where it could not be written."""
    import trimtab

    try:
        return trimtab.write_report(folder)
    except Exception as error:
        complain(f"The page could not be written: {type(error).__name__}: {error}")
        return None


def _result(summary: RunSummary) -> dict[str, Any]:
    record = summary.to_json()
    return {key: record[key] for key in RESULT_KEYS}
