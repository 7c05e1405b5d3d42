"""The plateau plot of a search, from its data in `tune_figures`."""

from __future__ import annotations

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from trimtab.report.charts import (
    BARS,
    FONT_POINTS,
    HELD_OUT,
    INK,
    MARK,
    TRAIN,
    WIDE_INCHES,
    mark,
    new_axes,
    svg,
)
from trimtab.report.tune_figures import PlateauPoints
from trimtab.report.words import float_text

MARGIN = 1.25
"""How far the axis goes past the outermost value, as a factor."""


def draw_plateau(points: PlateauPoints) -> Markup:
    """Held-out loss over the value, with intervals against the lowest one; the plateau is shaded,
    and the best run ringed.
    """
    figure, axes = new_axes(WIDE_INCHES)
    axes.set_xscale("log")
    shown = [*points.values, *points.diverged]
    axes.set_xlim(min(shown) / MARGIN, max(shown) * MARGIN)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: float_text(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)
    if points.low < points.high:
        axes.axvspan(points.low, points.high, color=BARS, alpha=0.25, linewidth=0)
    if points.region is not None:
        axes.plot(
            points.region,
            (0.02, 0.02),
            transform=axes.get_xaxis_transform(),
            color=MARK,
            linewidth=2.0,
            solid_capstyle="butt",
        )
    axes.errorbar(
        points.values,
        points.losses,
        yerr=points.half_widths,
        color=HELD_OUT,
        ecolor=TRAIN,
        elinewidth=0.9,
        linewidth=1.0,
        marker="o",
        markersize=4,
    )
    if points.best_loss is not None:
        axes.plot(points.best, points.best_loss, "o", color=MARK, fillstyle="none", markersize=10)
    for value in points.diverged:
        axes.annotate(
            "×",
            (value, 0.97),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="top",
            fontsize=FONT_POINTS + 3,
            color=MARK,
        )
    if points.start is not None and points.start != points.best:
        mark(axes, points.start, f"the plan's own: {float_text(points.start)}")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(points.name, fontsize=FONT_POINTS, color=INK)
    described = f"Held-out loss in nats per trainable token over {points.name}"
    return svg(figure, f"plateau-{points.name}", described)
