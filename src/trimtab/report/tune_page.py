"""The page of a search, from the result in its folder alone."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from trimtab.errors import ConfigError
from trimtab.report import tune_story
from trimtab.report.rendering import render
from trimtab.report.tune_drawing import draw_plateau
from trimtab.report.tune_figures import plateau_points
from trimtab.runs.atomic import write_text
from trimtab.search.folder import TuneFolder
from trimtab.search.record import TuneResult


def write_tune_page(folder: str | Path) -> Path:
    """Write report.html into a search's folder, and return its path.

    Raises ConfigError where the folder holds no finished search.
    """
    root = Path(folder)
    result = TuneFolder(root).result()
    if result is None:
        raise ConfigError(
            "this is no folder of a finished search.",
            where=str(root),
            hint="Name the folder that `trimtab tune` printed, or let the search end first.",
        )
    page = root / "report.html"
    write_text(page, render_tune_page(result))
    return page


def render_tune_page(result: TuneResult) -> str:
    charts: list[tuple[str, Markup]] = [
        (name, draw_plateau(points))
        for name in result.names
        if (points := plateau_points(result, name)) is not None
    ]
    return render(
        "tune.html",
        result=result,
        title=f"{', '.join(result.names)} of {result.model}",
        charts=charts,
        runs=sorted(result.runs, key=lambda run: (run.is_short, *run.values.values())),
        headline=tune_story.headline(result),
        plateau=tune_story.plateau_sentence(result),
        horizon=tune_story.horizon_sentence(result),
        cost=tune_story.cost_sentence(result),
        limits=tune_story.limits_sentence(result),
    )
