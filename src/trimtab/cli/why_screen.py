"""One decision unfolded: its facts, its rule, what was turned down, and how far it holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trimtab.cli.pictures import bar
from trimtab.cli.plan_screen import ORIGIN_STYLES, decided_text, rate_curve
from trimtab.hyperparameters.catalogue import Entry, catalogue
from trimtab.planning.decision import Decision
from trimtab.planning.fact import Fact, Facts
from trimtab.planning.plan import Plan
from trimtab.planning.trials import Point, measured_points
from trimtab.report.measurements import cost_s, fact_text, tokens_per_s, warm_update_s
from trimtab.report.tables import decided_value
from trimtab.report.words import bytes_text, seconds_text, value_text, visible

SHAPED_BY_SCHEDULE = {
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "warmup_ratio",
}
LOSS_BAR_WIDTH = 40


def why_json(plan: Plan, name: str) -> dict[str, Any]:
    """The decision with the facts that it rests on."""
    decision = plan.decision(name)
    return {
        "decision": decision.to_json(),
        "facts": [fact.to_json() for fact in _facts(plan, decision)],
    }


def show_why(console: Console, plan: Plan, name: str) -> None:
    """All that the plan knows of one hyperparameter; `name` is the catalogue's."""
    decision, entry = plan.decision(name), catalogue()[name]
    facts = _facts(plan, decision)
    console.print()
    console.rule(f"[bold]Why {name}[/]", align="left", style="dim")
    console.print(Text(entry.declaration.meaning, style="dim"))
    console.print()
    console.print(_decided(decision, entry))
    _section(console, "facts", _fact_table(plan, facts) if facts else None)
    _section(console, "turned down", _alternatives(decision))
    if any(fact.id == "trials.points" for fact in facts):
        points = measured_points(Facts().adding(facts))
        _section(console, "updates that were measured", _trial_table(points))
    for fact in facts:
        if fact.id == "rate_range.losses":
            losses = cast(list[list[Any]], fact.value)
            _section(console, "the loss after an update at each rate", _loss_table(losses))
    if name in SHAPED_BY_SCHEDULE:
        _section(console, "the rate over the run", rate_curve(plan))
    console.print()


def _facts(plan: Plan, decision: Decision) -> list[Fact]:
    by_id = {fact.id: fact for fact in plan.facts}
    return [by_id[fact_id] for fact_id in dict.fromkeys(decision.facts) if fact_id in by_id]


def _section(console: Console, title: str, body: Table | Text | None) -> None:
    if body is not None:
        console.print(f"\n[bold]{title}[/]")
        console.print(Padding(body, (0, 0, 0, 2)))


def _decided(decision: Decision, entry: Entry) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(ratio=1)
    unit = "" if entry.declaration.unit in {None, "bytes"} else f" {entry.declaration.unit}"
    is_number = isinstance(decision.value, int | float) and not isinstance(decision.value, bool)
    table.add_row("value", Text(decided_text(decision) + (unit if is_number else ""), style="bold"))
    table.add_row("origin", Text(decision.origin, style=ORIGIN_STYLES[decision.origin]))
    table.add_row("because", Text(visible(decision.because)))
    if entry.declaration.auto is not None:
        table.add_row("rule of auto", Text(entry.declaration.auto))
    if entry.declaration.evidence is not None:
        table.add_row("evidence", Text(entry.declaration.evidence))
    if decision.limits is not None:
        table.add_row("holds while", Text(visible(decision.limits)))
    return table


def _fact_table(plan: Plan, facts: Sequence[Fact]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("fact", overflow="fold")
    table.add_column("value", overflow="fold", max_width=36)
    table.add_column("how, and where", ratio=1)
    table.add_column("cost", justify="right", no_wrap=True)
    for fact in facts:
        if fact.id in {"trials.points", "rate_range.losses"}:
            shown = f"{len(cast(list[Any], fact.value))} of them, below"
        else:
            shown = fact_text(fact)
        cost = cost_s(plan, fact)
        how = "; ".join(part for part in (fact.method, fact.device) if part)
        table.add_row(
            escape(fact.id),
            Text(visible(shown)),
            Text(visible(how)),
            seconds_text(cost) if cost else "",
        )
    return table


def _alternatives(decision: Decision) -> Table | None:
    if not decision.alternatives:
        return None
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for other in decision.alternatives:
        value = decided_value(decision.name, other.value)
        table.add_row(Text(visible(value), style="bold"), Text(visible(other.because)))
    return table


def _trial_table(points: Sequence[Point]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("checkpointing", "rows", "batches", "tokens"):
        table.add_column(title, justify="left" if title == "checkpointing" else "right")
    for title in ("an update", "tokens/s", "peak memory"):
        table.add_column(title, justify="right", no_wrap=True)
    for point in points:
        seconds, speed = warm_update_s(point), tokens_per_s(point)
        table.add_row(
            _checkpointing(point),
            f"{point.trial.num_rows} longest",
            f"{point.trial.num_micro_batches}",
            f"{point.size.num_tokens * point.trial.num_micro_batches:,}",
            "" if seconds is None else seconds_text(seconds),
            "" if speed is None else f"{speed:,.0f}",
            "outgrew it" if point.peak_bytes is None else bytes_text(point.peak_bytes),
        )
    return table


def _checkpointing(point: Point) -> str:
    kept = point.checkpointing
    return f"every {kept} layers" if isinstance(kept, int) else kept


def _loss_table(losses: Sequence[Sequence[Any]]) -> Table:
    """A bar for each rate; losses over twice the first one go off the picture."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    drawn = [loss for _, loss in losses if _is_finite(loss)]
    full = min(max(drawn), 2 * drawn[0]) if drawn else 1.0
    for rate, loss in losses:
        told = f"{loss:.4f}" if _is_finite(loss) else "not finite"
        picture = bar(loss, full, LOSS_BAR_WIDTH) if _is_finite(loss) else ""
        table.add_row(value_text(rate), told, Text(picture, style="green"))
    return table


def _is_finite(loss: Any) -> bool:
    return isinstance(loss, int | float) and math.isfinite(loss)
