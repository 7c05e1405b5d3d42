"""What became of another tool's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimtab.hyperparameters.writing import yaml_value
from trimtab.interop.importing import Imported
from trimtab.interop.translating import Difference, NotCarried
from trimtab.report.words import visible


def show_import(console: Console, imported: Imported, file: Path) -> None:
    """The tool, what was carried under another name, and every key that was not carried."""
    title = imported.dialect.title
    console.print(
        Text(f"{file} is a configuration of {title} (--from {imported.dialect.name}).", "bold")
    )
    told = f"{imported.num_carried} values were carried"
    if imported.renamed:
        pairs = (f"{theirs} → {', '.join(ours)}" for theirs, ours in imported.renamed.items())
        told += f", under other names: {'; '.join(pairs)}"
    console.print(Text(visible(f"{told}.")))
    if imported.not_carried:
        console.print(losses_table(imported.not_carried))
    show_differences(console, imported.differences, title)
    if imported.left_out:
        values = ", ".join(
            f"{one.name} ({title} would take {yaml_value(one.theirs)})" for one in imported.left_out
        )
        console.print(Text(f"Left out by the file, so the plan decides: {values}."))
    console.print()


def show_differences(console: Console, differences: Sequence[Difference], title: str) -> None:
    """What the other tool does otherwise, a line each; nothing where there is none."""
    for difference in differences:
        console.print(Text(visible(f"Not the same in {title}: {difference.why}.")))


def losses_table(not_carried: Sequence[NotCarried]) -> Table:
    """Each key that is left behind, those first that change the result."""
    table = Table(title="Not carried over", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("key", no_wrap=True)
    table.add_column("value", overflow="fold", max_width=40)
    table.add_column("result changes")
    table.add_column("why", overflow="fold")
    for lost in sorted(not_carried, key=lambda one: not one.changes_result):
        table.add_row(
            Text(visible(lost.name)),
            Text(visible(lost.shown_value)),
            Text("yes", "yellow") if lost.changes_result else "no",
            Text(visible(lost.why)),
        )
    return table
