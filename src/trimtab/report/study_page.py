"""The page of a study: verdicts, arms with their intervals, curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trimtab.errors import ConfigError
from trimtab.report.rendering import render
from trimtab.report.study_drawing import draw_arm_curves, draw_forest
from trimtab.report.study_figures import arm_curves, forest_plot
from trimtab.report.words import bytes_text, counted, seconds_text
from trimtab.runs.atomic import write_text
from trimtab.study.folder import StudyFolder
from trimtab.study.guide_result import GuideResult
from trimtab.study.result import ArmResult, StudyResult
from trimtab.study.words import (
    caveats,
    effect_text,
    interval_text,
    reason_text,
    steps_text,
    told_value,
)

ONE_BY_ONE = (
    "Each claim is judged by itself at 95%, so that of many which are false one may hold by chance."
)


def write_study_report(root: Path) -> Path:
    """Write report.html into a study's folder, from that folder alone, and return its path.

    Raises ConfigError where the study has no result yet.
    """
    folder = StudyFolder(root)
    write_text(folder.report_html, render_study_page(_record(folder)))
    return folder.report_html


def render_study_page(record: dict[str, Any]) -> str:
    """The page of a result.json, of a study or of the guide's claims."""
    if "claims" in record:
        return _guide_page(GuideResult.from_json(record))
    return _study_page(StudyResult.from_json(record))


def _record(folder: StudyFolder) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(folder.result_json.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            "this study has no result yet.",
            where=str(folder.root),
            hint="Give its command again: finished runs are kept.",
        ) from error
    return record


def _study_page(result: StudyResult) -> str:
    forest, curves = forest_plot(result), arm_curves(result)
    return render(
        "study.html",
        result=result,
        name=Path(result.folder).name,
        title=f"Does {result.name} matter here?",
        lead=study_lead(result),
        interval_heading=interval_heading(result),
        rows=[_row(arm) for arm in result.arms],
        caveats=caveats(result),
        forest_svg=draw_forest(forest) if forest else None,
        curves_svg=draw_arm_curves(curves) if curves else None,
    )


def study_lead(result: StudyResult) -> str:
    """What was run, in one sentence."""
    seeds = counted(len(result.seeds), "seed")
    held = "everything else held"
    if result.is_retuned:
        held = f"each at a learning rate that was searched for it, {held}"
    return (
        f"{counted(len(result.arms), 'value')} over {seeds} that they share, "
        f"{steps_text(result)} a run, {held}, on {result.device}. "
        f"Differences within {100 * result.equivalence_margin:g}% of the reference's loss count "
        "as none."
    )


def _row(arm: ArmResult) -> dict[str, str]:
    return {
        "value": told_value(arm.value),
        "verdict": arm.verdict or "reference",
        "loss": "–" if arm.mean_loss is None else f"{arm.mean_loss:.4f}",
        "effect": effect_text(arm) or "–",
        "interval": interval_text(arm) or "–",
        "seconds": arm_seconds(arm),
        "memory": arm_memory(arm),
        "tokens": f"{arm.num_tokens:,}",
        "updates": f"{arm.num_steps:,}",
        "rate": told_value(arm.learning_rate),
        "why": reason_text(arm),
    }


def arm_seconds(arm: ArmResult) -> str:
    return "–" if arm.seconds is None else seconds_text(arm.seconds)


def arm_memory(arm: ArmResult) -> str:
    return "–" if arm.peak_memory_bytes is None else bytes_text(arm.peak_memory_bytes)


def interval_heading(result: StudyResult) -> str:
    """`95% interval, nats`; with several comparisons the level at which all hold together."""
    return f"{100 * result.interval_level:.3g}% interval, nats"


def _guide_page(result: GuideResult) -> str:
    seeds = counted(len(result.seeds), "seed")
    lead = (
        f"{counted(len(result.claims), 'claim')} of the guide, tried on this model and these rows "
        f"over {seeds}, {counted(result.num_steps, 'update')} a run as planned. {ONE_BY_ONE}"
    )
    return render(
        "guide.html",
        result=result,
        name=Path(result.folder).name,
        title="Does the guide hold here?",
        lead=lead,
    )
