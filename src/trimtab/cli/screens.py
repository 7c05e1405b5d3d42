"""What the commands show: the data, the result, the answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from trimtab.report.collect import RunRecord
from trimtab.report.comparison import Comparison, comparisons
from trimtab.report.happenings import event_text, spikes_text
from trimtab.report.tables import samples_sentence
from trimtab.report.words import bytes_text, seconds_text, visible
from trimtab.runs.records import DataRecord, RunSummary, Segment

if TYPE_CHECKING:
    from trimtab.workflow.generating import Answer
    from trimtab.workflow.inspecting import Inspection


def show_summary(
    console: Console, summary: RunSummary, record: RunRecord, report: str | None
) -> None:
    """The end of a run: the losses, the speed, the plan's figures, and where the things are."""
    root = summary.run
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
    for label, told in _as_predicted(comparisons(record)):
        table.add_row(label, told)
    for event in record.events:
        if event.event == "recipe changed":
            table.add_row("changed", escape(f"at update {event.step}, {event_text(event)}"))
    if spikes_text(summary):
        table.add_row("loss spikes", spikes_text(summary))
    if summary.result is not None:
        table.add_row(summary.result, escape(f"{root}/{summary.result}"))
    if report is not None:
        table.add_row("page", escape(report))
    console.print()
    console.rule("[bold]Result[/]", align="left", style="dim")
    console.print(table)


def _as_predicted(rows: Sequence[Comparison]) -> list[tuple[str, str]]:
    """What the plan had predicted, with its error; what it had not is named."""
    known = [one for one in rows if one.error_text and one.quantity != "tokens an update"]
    bound = [one for one in rows if one.is_bound and one.error is not None]
    unknown = [one.quantity for one in rows if one.predicted is None]
    parts = [f"{one.quantity} {one.predicted_text} ({one.error_text})" for one in known]
    told = [("predicted", ", ".join(parts))] if parts else []
    told += [("worst case", f"{one.predicted_text}. {one.sentence}") for one in bound]
    return told + ([("not predicted", ", ".join(unknown))] if unknown else [])


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
        console.print(f"\n[bold]Template[/] ({escape(visible(data.template))}): ", end="")
        console.print(Text(visible(data.template_because)))
        console.print(Padding(Text(visible(inspection.template_text), style="dim"), (0, 0, 0, 2)))
    for number, example in enumerate(data.examples, start=1):
        console.print(f"\n[bold]Row {number}[/]  [black on green] trained on [/] [dim]not[/]")
        console.print(_coloured(example))


def _counts(data: DataRecord) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    share = data.num_trainable_tokens / data.num_tokens
    table.add_row("format", Text(visible(f"{data.format}: {data.format_because}")))
    table.add_row(
        "rows",
        f"{data.num_rows:,} read, {data.num_bad_rows:,} bad, {data.num_duplicate_rows:,} "
        f"duplicates; {data.num_train_examples:,} to train on, {data.num_eval_examples:,} held "
        f"out, {data.num_duplicates_of_held_out:,} left out as copies of held-out rows",
    )
    table.add_row(
        "tokens",
        f"{data.num_tokens:,} to train on, of which {data.num_trainable_tokens:,} ({share:.0%}) "
        "carry the loss"
        + (f"; estimated from {data.num_tokenised:,} rows" if data.num_tokenised else ""),
    )
    table.add_row(
        "cut",
        f"{data.num_truncated:,} rows cut, {data.num_tokens_cut:,} tokens gone, "
        f"{data.num_trainable_tokens_cut:,} fewer to train on, {data.num_dropped:,} rows dropped",
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
