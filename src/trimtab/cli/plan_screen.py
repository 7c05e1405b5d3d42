"""The plan on a console: decisions, predictions, what was measured, and what was not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trimtab.cli.pictures import sparkline
from trimtab.hyperparameters.catalogue import catalogue
from trimtab.planning.curve import learning_rates
from trimtab.planning.decision import Decision
from trimtab.planning.plan import Plan
from trimtab.report.measurements import Measurement, is_recalled, measurements, total_cost_s
from trimtab.report.words import bytes_text, seconds_text, value_text, visible

ORIGIN_STYLES = {"user": "cyan", "measured": "green", "rule": "yellow", "default": "dim"}
LABEL_WIDTH = 15
SECONDS_TO_TELL = 0.05


def show_plan(
    console: Console, plan: Plan, *, is_quick: bool = False, title: str | None = None
) -> None:
    """Every hyperparameter by family, the rate's curve, the predictions, and what is unsure."""
    console.print()
    told = title or _title(plan, is_quick)
    console.rule(f"[bold]{escape(told)}[/]", align="left", style="dim")
    for family, decisions in groupby(plan.decisions, key=lambda one: _family(one.name)):
        console.print(Padding(_decision_table(family, list(decisions)), (0, 0, 1, 0)))
    console.print(_summary(plan))
    console.print()
    console.print(_measured(measurements(plan), is_quick))
    for warning in plan.warnings:
        console.print(f"[yellow]![/] {escape(visible(warning))}")
    if plan.not_measured:
        console.print(f"[dim]Not measured: {escape(visible('; '.join(plan.not_measured)))}.[/]")
    console.print()


def rate_curve(plan: Plan) -> Text:
    """The learning rate over the run, and its ends."""
    rates = learning_rates(plan.settings())
    return Text.assemble(
        (sparkline(rates), "green"),
        f"  peak {max(rates):.2e}, last {rates[-1]:.2e}, {len(rates):,} updates",
    )


def decided_text(decision: Decision) -> str:
    """The value as a reader would say it."""
    is_bytes = catalogue()[decision.name].declaration.unit == "bytes"
    if is_bytes and isinstance(decision.value, int):
        return bytes_text(decision.value)
    return visible(value_text(decision.value))


def _title(plan: Plan, is_quick: bool) -> str:
    if not is_quick:
        return "Plan"
    if is_recalled(plan):
        return "Plan, quick: rules and arithmetic; measurements are earlier ones, none is new"
    return "Plan, quick: rules and arithmetic; nothing was measured"


def _family(name: str) -> str:
    return catalogue()[name].declaration.family


def _decision_table(family: str, decisions: Sequence[Decision]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title=family, title_justify="left")
    table.title_style = "bold"
    table.show_header = False
    table.add_column("hyperparameter", no_wrap=True, min_width=27)
    table.add_column("value", overflow="fold", min_width=14, max_width=28)
    table.add_column("origin", no_wrap=True, min_width=8)
    table.add_column("because", ratio=1)
    for decision in decisions:
        style = ORIGIN_STYLES[decision.origin]
        table.add_row(
            escape(decision.name),
            Text(decided_text(decision), style="bold" if decision.origin != "default" else ""),
            Text(decision.origin, style=style),
            Text(visible(decision.because), style="" if decision.origin != "default" else "dim"),
        )
    return table


def labelled() -> Table:
    """Rows of a bold word and a text."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True, min_width=LABEL_WIDTH)
    table.add_column(ratio=1)
    return table


def _summary(plan: Plan) -> Table:
    """What the run is expected to take."""
    predicted = plan.predictions
    table = labelled()
    table.add_row("learning rate", rate_curve(plan))
    table.add_row("memory", _memory(plan))
    length = f"{predicted.num_steps:,} updates"
    if predicted.tokens_per_step is not None:
        num_tokens = predicted.num_steps * predicted.tokens_per_step
        length += f" of {predicted.tokens_per_step:,.0f} tokens, {num_tokens:,.0f} tokens in all"
    table.add_row("length", length)
    table.add_row("time", _time(plan))
    return table


def _memory(plan: Plan) -> str:
    predicted = plan.predictions
    limit = bytes_text(plan.settings().memory_limit)
    parts = []
    if predicted.peak_memory_bytes is not None:
        parts.append(f"{bytes_text(predicted.peak_memory_bytes)} at the peak of this run")
    if predicted.worst_case_memory_bytes is not None:
        worst = bytes_text(predicted.worst_case_memory_bytes)
        parts.append(f"{worst} in the worst case, {limit} allowed")
    return ", ".join(parts) or f"not predicted; {limit} allowed"


def _time(plan: Plan) -> str:
    predicted = plan.predictions
    if predicted.step_time_s is None:
        return "not predicted: nothing was timed"
    told = f"{seconds_text(predicted.step_time_s)} an update"
    if predicted.total_time_s is not None:
        told += f", {seconds_text(predicted.total_time_s)} in all"
    return told


def _measured(measured: Sequence[Measurement], is_quick: bool) -> Table:
    """One line a probe, with its seconds."""
    title = "read and recalled; nothing was measured now" if is_quick else "measured, and its cost"
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left")
    table.title_style = "bold"
    table.show_header = False
    table.add_column("probe", no_wrap=True, min_width=LABEL_WIDTH)
    table.add_column("found", ratio=1)
    table.add_column("seconds", no_wrap=True, justify="right")
    for one in measured:
        cost = seconds_text(one.cost_s) if one.cost_s >= SECONDS_TO_TELL else ""
        table.add_row(one.probe, Text(visible(one.found)), Text(cost, style="dim"))
    total = total_cost_s(measured)
    if total >= SECONDS_TO_TELL:
        table.add_row("in all", "", Text(seconds_text(total), style="bold"))
    return table
