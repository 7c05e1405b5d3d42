"""A plan for devices that are not here: the plan, the splits, where the time goes, the cost."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trimtab.cli.plan_screen import labelled, show_plan
from trimtab.planning.forecast import Forecast, SplitForecast
from trimtab.planning.step_time import Split
from trimtab.report.words import bytes_text, seconds_text


def show_forecast(console: Console, made: Forecast) -> None:
    """The plan of the fastest split, with the others below it."""
    devices = f"{made.chosen.split.num_devices:,} × {made.device}"
    title = f"Plan, predicted for {devices}; nothing was measured on it"
    show_plan(console, made.plan, is_quick=True, title=title)
    console.print(_splits(made))
    console.print()
    console.print(_figures(made))
    console.print()


def split_text(split: Split) -> str:
    """`replicate`, `shard over 64`, or both."""
    if split.num_devices == 1:
        return "one device"
    if split.num_shards == 1:
        return f"replicate, {split.num_copies:,} copies"
    over = f"shard over {split.num_shards:,}"
    return over if split.num_copies == 1 else f"{over}, {split.num_copies:,} copies"


def _splits(made: Forecast) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title="splits", title_justify="left")
    table.title_style = "bold"
    for heading in ("", "split", "memory a device", "batch", "checkpointing", "an update"):
        table.add_column(heading, no_wrap=True)
    table.add_column("tokens/s a device", no_wrap=True, justify="right")
    table.add_column("", ratio=1)
    for one in made.splits:
        mark = "→" if one is made.chosen else ""
        table.add_row(mark, split_text(one.split), *_cells(one))
    return table


def _cells(one: SplitForecast) -> tuple[str, ...]:
    note = "" if one.runs else "[dim]train does not split so[/]"
    if one.plan is None or one.terms is None or one.tokens_per_s is None:
        return ("does not fit", "", "", "", "", note)
    settings = one.plan.settings()
    return (
        bytes_text(one.plan.predictions.worst_case_memory_bytes or 0),
        f"{settings.per_device_train_batch_size} × {settings.gradient_accumulation_steps}",
        str(settings.activation_checkpointing),
        seconds_text(one.terms.update_s),
        f"{one.tokens_per_s:,.0f}",
        note,
    )


def _figures(made: Forecast) -> Table:
    terms = made.terms
    table = labelled()
    causes = {
        "arithmetic": terms.arithmetic_s,
        "memory traffic": terms.memory_s,
        "waiting for other devices": terms.waiting_s,
        "optimizer": terms.optimizer_s,
    }
    shares = ", ".join(
        f"{cause} {seconds / terms.update_s:.0%}" for cause, seconds in causes.items() if seconds
    )
    table.add_row("an update", f"{seconds_text(terms.update_s)}: {shares}")
    hours = f"{made.device_hours:,.2f} device hours"
    if made.cost is not None:
        hours += f", {made.cost:,.2f} at {made.price_per_device_hour:g} an hour"
    table.add_row("cost", escape(hours))
    table.add_row("how near", "docs/scale.md has the formula beside published speeds")
    return table
