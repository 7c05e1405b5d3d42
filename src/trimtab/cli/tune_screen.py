"""What a search came to, on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimtab.report.tune_story import cost_sentence, headline, horizon_sentence, plateau_sentence
from trimtab.report.words import float_text, seconds_text, visible
from trimtab.search.record import TriedRun, TuneResult


def show_tune(console: Console, result: TuneResult, page: Path) -> None:
    """The runs from the least value to the largest, the plateau, the last word and the cost."""
    table = Table(box=None, pad_edge=False, header_style="")
    for name in result.names:
        table.add_column(name, justify="right")
    table.add_column("held-out loss", justify="right")
    table.add_column("over the lowest", justify="right")
    table.add_column("")
    for run in sorted(result.runs, key=lambda one: (one.is_short, *one.values.values())):
        table.add_row(*_cells(run, result))
    console.print(table)
    console.print()
    sentences = (plateau_sentence(result), horizon_sentence(result))
    for sentence in (headline(result), *sentences, cost_sentence(result)):
        if sentence:
            console.print(Text(visible(sentence)), soft_wrap=True)
    console.print(Text(f"page  {visible(str(page))}"), soft_wrap=True)


def _cells(run: TriedRun, result: TuneResult) -> list[str]:
    values = [float_text(run.values[name]) for name in result.names]
    notes = []
    if run.is_start:
        notes.append("the plan's own")
    if run.is_short:
        notes.append(f"{run.num_steps} updates")
    if run.to_lowest is not None and not run.is_short and result.best == run.values:
        notes.append("best")
    if run.search_loss is None or run.to_lowest is None:
        return [*values, "–", "–", ", ".join([visible(str(run.diverged)), *notes])]
    near = run.to_lowest
    over = "" if near.standard_error == 0 else f"{near.effect:+.4f} ± {near.high - near.effect:.4f}"
    notes.append(seconds_text(run.seconds))
    return [*values, f"{run.search_loss:.4f}", over, ", ".join(notes)]
