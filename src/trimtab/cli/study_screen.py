"""What `trimtab study` shows: the arms with their verdicts, or the guide's claims."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trimtab.report.study_page import (
    ONE_BY_ONE,
    arm_memory,
    arm_seconds,
    interval_heading,
    study_lead,
)
from trimtab.report.words import counted, visible
from trimtab.study.guide_result import GuideResult
from trimtab.study.result import StudyResult
from trimtab.study.words import caveats, effect_text, interval_text, reason_text, told_value

STYLES = {
    "better": "green",
    "worse": "red",
    "equivalent": "cyan",
    "undecided": "yellow",
    "held": "green",
    "not held": "red",
}


def show_study(console: Console, result: StudyResult, page: Path) -> None:
    """Each value with its verdict, effect, interval, time and memory; then why."""
    console.print()
    console.rule(f"[bold]Does {result.name} matter here?[/]", align="left", style="dim")
    console.print(Text(visible(study_lead(result)), style="dim"))
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(result.name, overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for heading in ("held-out loss", "effect", interval_heading(result), "updates took", "memory"):
        table.add_column(heading, justify="right", overflow="fold")
    for arm in result.arms:
        verdict = arm.verdict or "reference"
        table.add_row(
            Text(visible(told_value(arm.value)), style="bold"),
            Text(verdict, style=STYLES.get(verdict, "dim")),
            "" if arm.mean_loss is None else f"{arm.mean_loss:.4f}",
            effect_text(arm),
            interval_text(arm),
            arm_seconds(arm),
            arm_memory(arm),
        )
    console.print(table)
    console.print()
    for arm in result.arms[1:]:
        told = f"{told_value(arm.value)} is {arm.verdict}: {reason_text(arm)}."
        console.print(Text(visible(told)))
    if result.is_retuned:
        rates = ", ".join(
            f"{told_value(arm.value)}: {told_value(arm.learning_rate)}" for arm in result.arms
        )
        console.print(Text(visible(f"Learning rates that were searched for: {rates}.")))
    for caveat in caveats(result):
        console.print(Text(visible(caveat), style="yellow"))
    _places(console, result.folder, page)


def show_guide(console: Console, result: GuideResult, page: Path) -> None:
    """Each claim: held, not held or undecided here, with the figures."""
    console.print()
    console.rule("[bold]Does the guide hold here?[/]", align="left", style="dim")
    seeds = counted(len(result.seeds), "seed")
    told = f"{counted(result.num_steps, 'update')} a run as planned, over {seeds}"
    console.print(Text(f"{told}. {ONE_BY_ONE}", style="dim"))
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("row", justify="right")
    table.add_column("the guide says", ratio=2)
    table.add_column("here", no_wrap=True)
    table.add_column("figures, with their intervals", ratio=3)
    for claim in result.claims:
        table.add_row(
            str(claim.row),
            Text(claim.says),
            Text(claim.outcome, style=STYLES.get(claim.outcome, "yellow")),
            Text(visible(claim.figures)),
        )
    console.print(table)
    _places(console, result.folder, page)


def _places(console: Console, folder: str, page: Path) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("study", Text(folder))
    table.add_row("page", Text(str(page)))
    console.print()
    console.print(Padding(table, 0))
