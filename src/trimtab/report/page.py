"""The page of a run: one file that loads nothing and runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from trimtab.planning.plan import Plan
from trimtab.report import comparison, story, tables
from trimtab.report.collect import RunRecord, collect
from trimtab.report.drawing import (
    draw_grad_norm,
    draw_learning_rate,
    draw_lengths,
    draw_losses,
    draw_pair,
)
from trimtab.report.figures import grad_norm_curve, learning_rate_curve, length_bars, loss_curve
from trimtab.report.rendering import render
from trimtab.report.study_page import write_study_report
from trimtab.report.tune_page import write_tune_page
from trimtab.runs.atomic import write_text
from trimtab.runs.folder import refuse_unusable
from trimtab.search.folder import TuneFolder
from trimtab.study.folder import is_study

MAX_EVENTS_SHOWN = 200


def write_report(run: str | Path) -> Path:
    """Write report.html into the folder of a run, a search or a study, and return its path.

    It is made from the folder alone. Raises ConfigError where the path is none of them, or a search
    or study that has no result yet.
    """
    root = Path(run)
    refuse_unusable(root)
    if is_study(root):
        return write_study_report(root)
    if TuneFolder(root).base_json.is_file():
        return write_tune_page(root)
    record = collect(root)
    write_text(record.run.report_html, render_page(record))
    return record.run.report_html


def render_page(record: RunRecord) -> str:
    """The page as HTML, as `rendering.render` makes it."""
    compared = comparison.comparisons(record)
    return render(
        "page.html",
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
