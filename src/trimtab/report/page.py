"""The page of a run: one file that loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from trimtab.planning.plan import Plan
from trimtab.report import comparison, happenings, story, tables
from trimtab.report.collect import RunRecord, collect
from trimtab.report.drawing import (
    draw_grad_norm,
    draw_learning_rate,
    draw_lengths,
    draw_losses,
    draw_pair,
)
from trimtab.report.figures import grad_norm_curve, learning_rate_curve, length_bars, loss_curve
from trimtab.report.words import counted, prose, quantity_text, seconds_text, value_text, visible
from trimtab.runs.atomic import write_text

MAX_EVENTS_SHOWN = 200


def write_report(run: str | Path) -> Path:
    """Write report.html into a run folder, from that folder alone, and return its path.

    Raises ConfigError where the path is no run.
    """
    record = collect(Path(run))
    write_text(record.run.report_html, render_page(record))
    return record.run.report_html


def render_page(record: RunRecord) -> str:
    """The page as HTML.

    All text of the run is escaped; the page's policy allows no script, no request and no style
    but its own.
    """
    style = _template_text("page.css")
    compared = comparison.comparisons(record)
    template = _environment().get_template("page.html")
    return template.render(
        style=Markup(style),
        style_hash=_csp_hash(style),
        record=record,
        title=story.title(record),
        status=story.status(record),
        headline=story.headline(record),
        asked=tables.asked(record.config_yaml or ""),
        families=tables.families(record.plan) if record.plan else (),
        method=story.method_sentence(record.plan) if record.plan else "",
        comparisons=[(one, _pair(one)) for one in compared],
        verdict=comparison.verdict(compared),
        data_figures=list(tables.data_figures(record)),
        samples_lead=tables.samples_sentence(record),
        truncation=tables.truncation_sentence(record),
        max_events=MAX_EVENTS_SHOWN,
        trimtab_version=version("trimtab"),
        **_figures(record),
    )


def _figures(record: RunRecord) -> dict[str, Any]:
    kept_step = record.summary.best_step if record.summary else None
    losses = loss_curve(record.updates, record.evaluations, kept_step)
    rate = learning_rate_curve(record.updates)
    norm = grad_norm_curve(record.updates)
    bars = length_bars(record.data, _number(record.plan, "max_length")) if record.data else None
    return {
        "losses": losses,
        "loss_svg": draw_losses(losses) if losses else None,
        "rate_svg": draw_learning_rate(rate) if rate else None,
        "grad_norm_svg": draw_grad_norm(norm, _number(record.plan, "max_grad_norm"))
        if norm
        else None,
        "lengths_svg": draw_lengths(bars) if bars else None,
    }


def _pair(one: comparison.Comparison) -> Markup | None:
    if one.predicted is None or one.actual is None:
        return None
    described = f"predicted {one.predicted_text}, actual {one.actual_text}"
    return draw_pair(one.predicted, one.actual, described)


def _number(plan: Plan | None, name: str) -> float | None:
    return None if plan is None else plan.decision(name).value


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_template_text),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        value=value_text,
        seconds=seconds_text,
        counted=counted,
        quantity=quantity_text,
        prose=prose,
    )
    environment.globals.update(
        event_text=happenings.event_text,
        spikes_text=happenings.spikes_text,
        meaning=tables.meaning,
        decided=tables.decided_value,
    )
    return environment


def _finalized(value: Any) -> Any:
    """Every text that the template prints goes through here, so none can turn the page around."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _template_text(name: str) -> str:
    return files("trimtab.report").joinpath("templates", name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
