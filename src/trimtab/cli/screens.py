"""What the commands show: the plan, the data, the result, the answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from trimtab.hyperparameters.catalogue import catalogue
from trimtab.planning.decision import Decision
from trimtab.planning.plan import Plan, Predictions
from trimtab.report.collect import RunRecord
from trimtab.report.tables import samples_sentence
from trimtab.report.words import bytes_text, seconds_text, value_text, visible
from trimtab.runs.records import DataRecord, RunSummary, Segment
from trimtab.workflow.generating import Answer
from trimtab.workflow.inspecting import Inspection

BARS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 60
ORIGIN_STYLES = {"user": "cyan", "measured": "green", "rule": "yellow", "default": "dim"}


def show_plan(console: Console, plan: Plan, learning_rates: Sequence[float]) -> None:
    """Every hyperparameter by family, the rate's curve, the predictions, and what is unsure."""
    console.print()
    console.rule("[bold]Plan[/]", align="left", style="dim")
    for family, decisions in groupby(plan.decisions, key=lambda one: _family(one.name)):
        console.print(Padding(_decision_table(family, list(decisions)), (0, 0, 1, 0)))
    console.print(_curve(learning_rates))
    console.print(_predictions(plan.predictions))
    for warning in plan.warnings:
        console.print(f"[yellow]![/] {escape(visible(warning))}")
    if plan.not_measured:
        console.print(f"[dim]Not measured: {escape('; '.join(plan.not_measured))}.[/]")
    console.print()


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
            Text(_value(decision), style="bold" if decision.origin != "default" else ""),
            Text(decision.origin, style=style),
            Text(visible(decision.because), style="" if decision.origin != "default" else "dim"),
        )
    return table


def _value(decision: Decision) -> str:
    if catalogue()[decision.name].declaration.unit == "bytes":
        return bytes_text(decision.value)
    return visible(value_text(decision.value))


def sparkline(values: Sequence[float], width: int = CURVE_WIDTH) -> str:
    """The values as a row of bars, at most `width` of them, from 0 to the largest."""
    top = max(values)
    if top <= 0:
        return BARS[0] * min(width, len(values))
    num_bars = min(width, len(values))
    chosen = [values[round(i * (len(values) - 1) / max(1, num_bars - 1))] for i in range(num_bars)]
    return "".join(BARS[round(value / top * (len(BARS) - 1))] for value in chosen)


def _curve(rates: Sequence[float]) -> Text:
    return Text.assemble(
        ("learning rate  ", "bold"),
        (sparkline(rates), "green"),
        f"  peak {max(rates):.2e}, last {rates[-1]:.2e}, {len(rates):,} updates",
    )


def _predictions(predictions: Predictions) -> Text:
    parts = [f"{predictions.num_steps:,} updates"]
    if predictions.tokens_per_step is not None:
        parts.append(f"{predictions.tokens_per_step:,.0f} tokens each")
    if predictions.step_time_s is not None:
        parts.append(f"about {seconds_text(predictions.step_time_s)} each")
    if predictions.total_time_s is not None:
        parts.append(f"{seconds_text(predictions.total_time_s)} in all")
    if predictions.peak_memory_bytes is not None:
        parts.append(f"{bytes_text(predictions.peak_memory_bytes)} at the peak")
    return Text.assemble(("predicted      ", "bold"), ", ".join(parts))


def show_summary(console: Console, summary: RunSummary, root: str, report: str | None) -> None:
    """The end of a run: the losses, the speed, and where the things are."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    if summary.base_eval_loss is not None and summary.eval_loss is not None:
        before, after = summary.base_eval_loss, summary.eval_loss
        change = f"{(after - before) / before:+.1%}"
        table.add_row(
            "held-out loss",
            f"{before:.4f} → [bold]{after:.4f}[/] nats per token ({change}), perplexity "
            f"{math.exp(min(before, 50)):.2f} → {math.exp(min(after, 50)):.2f}",
        )
    if summary.train_loss is not None:
        table.add_row("training loss", f"{summary.train_loss:.4f} nats per token, over all updates")
    speed = "" if summary.tokens_per_s is None else f", {summary.tokens_per_s:,.0f} tokens/s"
    table.add_row("trained", f"{summary.num_steps:,} updates, {summary.num_tokens:,} tokens{speed}")
    if summary.seconds is not None:
        memory = bytes_text(summary.peak_memory_bytes)
        table.add_row("took", f"{seconds_text(summary.seconds)}, {memory} at the peak")
    if summary.decisions_changed:
        table.add_row("changed", f"{', '.join(summary.decisions_changed)} during the run")
    if summary.result is not None:
        table.add_row(summary.result, escape(f"{root}/{summary.result}"))
    if report is not None:
        table.add_row("page", escape(report))
    console.print()
    console.rule("[bold]Result[/]", align="left", style="dim")
    console.print(table)


def show_samples(console: Console, record: RunRecord) -> None:
    """Prompts with the reference and both answers."""
    samples = record.samples or ()
    if samples:
        console.print(samples_sentence(record))
    for number, sample in enumerate(samples, start=1):
        rows: list[tuple[str, str | None]] = [
            ("reference", sample.reference),
            ("base", sample.base),
            ("tuned", sample.tuned),
        ]
        console.print(_sample_panel(f"{number} of {len(samples)}", sample.prompt, rows))


def show_answers(console: Console, answers: Sequence[Answer]) -> None:
    """What the base and the tuned model answer."""
    for answer in answers:
        rows = [("base", answer.base), ("tuned", answer.tuned)]
        console.print(_sample_panel("", answer.prompt, rows))


def _sample_panel(title: str, prompt: str, rows: Sequence[tuple[str, str | None]]) -> Panel:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        style = "green" if name == "tuned" else ""
        table.add_row(name, Text(visible((text or "").strip()) or "(nothing)", style=style))
    body: list[RenderableType] = [Text(visible(prompt.strip()), style="dim"), Text(), table]
    return Panel(Group(*body), title=title or None, title_align="left", box=box.ROUNDED)


def show_inspection(console: Console, inspection: Inspection) -> None:
    """Counts, problems, the length histogram, and rows coloured by what is trained on."""
    data = inspection.data
    console.rule("[bold]Data[/]", align="left", style="dim")
    console.print(_counts(data))
    for where, reason in inspection.bad_rows:
        console.print(f"[red]x[/] {escape(visible(where))}: {escape(visible(reason))}")
    for warning in inspection.plan.warnings:
        console.print(f"[yellow]![/] {escape(visible(warning))}")
    console.print()
    console.print(_histogram(data))
    if inspection.template_text is not None:
        console.print(f"\n[bold]Template[/] ({escape(data.template)}): ", end="")
        console.print(Text(data.template_because))
        console.print(Padding(Text(inspection.template_text, style="dim"), (0, 0, 0, 2)))
    for number, example in enumerate(data.examples, start=1):
        console.print(f"\n[bold]Row {number}[/]  [black on green] trained on [/] [dim]not[/]")
        console.print(_coloured(example))


def _counts(data: DataRecord) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    share = data.num_trainable_tokens / data.num_tokens
    table.add_row("format", Text(f"{data.format}: {data.format_because}"))
    table.add_row(
        "rows",
        f"{data.num_rows:,} read, {data.num_bad_rows:,} bad, {data.num_duplicate_rows:,} "
        f"duplicates; {data.num_train_examples:,} to train on, {data.num_eval_examples:,} held "
        f"out, {data.num_duplicates_of_held_out:,} left out as copies of held-out rows",
    )
    table.add_row(
        "tokens",
        f"{data.num_tokens:,} to train on, of which {data.num_trainable_tokens:,} ({share:.0%}) "
        "carry the loss",
    )
    table.add_row(
        "cut",
        f"{data.num_truncated:,} rows cut, {data.num_tokens_cut:,} tokens of them "
        f"({data.num_trainable_tokens_cut:,} trained ones), {data.num_dropped:,} rows dropped",
    )
    return table


def _histogram(data: DataRecord) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("rows", no_wrap=True)
    top = max(data.histogram_counts)
    edges = data.histogram_edges
    for low, high, count in zip(edges, edges[1:], data.histogram_counts, strict=False):
        table.add_row(f"{low:.0f}–{high:.0f} tokens", f"{'█' * round(40 * count / top)} {count:,}")
    return table


def _coloured(example: Sequence[Segment]) -> Text:
    text = Text()
    for segment in example:
        text.append(visible(segment.text), style="black on green" if segment.trained else "dim")
    return text
