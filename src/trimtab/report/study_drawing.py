"""The figures of a study's page, each from its data in `study_figures`."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from trimtab.report.charts import (
    BARS,
    FONT_POINTS,
    GRID,
    HELD_OUT,
    INK,
    MARK,
    SMOOTHED,
    TRAIN,
    WIDE_INCHES,
    new_axes,
    svg,
)
from trimtab.report.study_figures import ArmCurve, ForestPlot

_ROW_INCHES = 0.34
_FRAME_INCHES = 0.85
_COLOURS = {"better": SMOOTHED, "worse": HELD_OUT, "equivalent": MARK, "undecided": BARS}
_LINES = (
    (SMOOTHED, "-"),
    (HELD_OUT, "-"),
    (MARK, (0, (4, 1.5))),
    (BARS, (0, (1, 1.2))),
    (TRAIN, (0, (5, 1, 1, 1))),
)
_MARKS = ("", "s", "^", "D")


def draw_forest(plot: ForestPlot) -> Markup:
    """A line for each arm: its effect and interval, beside the margin in which none counts."""
    height = _FRAME_INCHES + _ROW_INCHES * len(plot.rows)
    figure, axes = new_axes((WIDE_INCHES[0], height))
    axes.axvspan(-plot.margin, plot.margin, color=GRID, linewidth=0, alpha=0.6)
    axes.axvline(0, color=MARK, linewidth=0.9)
    positions = range(len(plot.rows), 0, -1)
    for position, row in zip(positions, plot.rows, strict=True):
        if row.effect is None:
            continue
        colour = _COLOURS[row.verdict]
        if row.low is not None and row.high is not None:
            axes.plot((row.low, row.high), (position, position), color=colour, linewidth=1.8)
        axes.plot([row.effect], [position], color=colour, marker="o", markersize=4.6)
    axes.set_yticks(list(positions), [f"{row.label}: {row.verdict}" for row in plot.rows])
    axes.set_ylim(0.4, len(plot.rows) + 0.6)
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=GRID, linewidth=0.5)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.3g}%"))
    axes.set_xlabel(
        f"held-out loss against {plot.reference}: left of 0 is better",
        fontsize=FONT_POINTS,
        color=INK,
    )
    described = "The effect of each value on the held-out loss with its interval"
    return svg(figure, "forest", described)


def draw_arm_curves(curves: Sequence[ArmCurve]) -> Markup:
    """Training loss of each arm, named in the legend; marks part lines of one style."""
    figure, axes = new_axes(WIDE_INCHES)
    for position, one in enumerate(curves):
        round_, place = divmod(position, len(_LINES))
        colour, style = _LINES[place]
        marker = _MARKS[round_ % len(_MARKS)] or ("o" if len(one.curve) <= 2 else "")
        axes.plot(
            one.curve.x,
            one.curve.y,
            color=colour,
            linestyle=style,
            linewidth=1.2,
            marker=marker,
            markersize=3.5 if round_ else 2.5,
            markevery=0.1 if round_ else None,
            label=one.label,
        )
    axes.legend(fontsize=FONT_POINTS, labelcolor=INK, frameon=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}%"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("share of the run's updates", fontsize=FONT_POINTS, color=INK)
    return svg(figure, "arm-curves", "Training loss of each value over its runs, mean of the seeds")
