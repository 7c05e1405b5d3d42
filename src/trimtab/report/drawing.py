"""The figures of a run's page, each from its data in `figures`."""

from __future__ import annotations

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from trimtab.report.charts import (
    BARS,
    FONT_POINTS,
    HELD_OUT,
    INK,
    MARK,
    NARROW_INCHES,
    RATE,
    SMOOTHED,
    TRAIN,
    VARIABLES,
    WIDE_INCHES,
    mark,
    new_axes,
    svg,
)
from trimtab.report.figures import Curve, LengthBars, LossCurve
from trimtab.report.words import float_text

_POINTS_WITH_MARKERS = 60


def draw_losses(curve: LossCurve) -> Markup:
    """Training loss of every update, its smoothed line, and the held-out loss."""
    figure, axes = new_axes(WIDE_INCHES)
    if len(curve.train):
        has_overlay = len(curve.smoothed) > 0
        axes.plot(
            curve.train.x,
            curve.train.y,
            color=TRAIN,
            linewidth=0.7 if has_overlay else 1.3,
            marker="o" if len(curve.train) <= 2 else "",
            markersize=2.5,
        )
    if len(curve.smoothed):
        axes.plot(curve.smoothed.x, curve.smoothed.y, color=SMOOTHED, linewidth=1.5)
    if len(curve.held_out):
        has_markers = len(curve.held_out) <= _POINTS_WITH_MARKERS
        axes.plot(
            curve.held_out.x,
            curve.held_out.y,
            color=HELD_OUT,
            linewidth=1.2,
            linestyle=(0, (3, 1.5)),
            marker="o" if has_markers else "",
            markersize=3.6,
        )
    if curve.kept_step is not None:
        mark(axes, curve.kept_step, f"kept: update {curve.kept_step:,}")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    described = "Training and held-out loss in nats per trainable token over weight updates"
    return svg(figure, "losses", described)


def draw_learning_rate(curve: Curve) -> Markup:
    """The learning rate of every update that was made."""
    figure, axes = new_axes(NARROW_INCHES)
    marker = "o" if len(curve) == 1 else ""
    axes.plot(curve.x, curve.y, color=RATE, linewidth=1.5, marker=marker, markersize=2.5)
    axes.set_ylim(bottom=0, top=max(curve.y) * 1.08 or 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: float_text(value)))
    return svg(figure, "rate", "Learning rate over weight updates")


def draw_grad_norm(curve: Curve, max_grad_norm: float | None) -> Markup:
    """The gradient norm of every update, and the norm that it is clipped to."""
    figure, axes = new_axes(NARROW_INCHES)
    marker = "o" if len(curve) == 1 else ""
    axes.plot(curve.x, curve.y, color=RATE, linewidth=1.0, marker=marker, markersize=2.5)
    highest = max(curve.y)
    if max_grad_norm and max_grad_norm <= highest * 2:
        axes.axhline(max_grad_norm, color=MARK, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.annotate(
            f"clipped to {float_text(max_grad_norm)}",
            (1, max_grad_norm),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=FONT_POINTS,
            color=MARK,
        )
        highest = max(highest, max_grad_norm)
    axes.set_ylim(bottom=0, top=highest * 1.12 or 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: float_text(value)))
    return svg(figure, "grad-norm", "Gradient norm before clipping over weight updates")


def draw_lengths(bars: LengthBars) -> Markup:
    """How many rows have which length."""
    figure, axes = new_axes(NARROW_INCHES)
    widths = [end - start for start, end in zip(bars.edges, bars.edges[1:], strict=False)]
    axes.bar(bars.edges[:-1], bars.counts, widths, align="edge", color=BARS, linewidth=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if bars.max_length is not None and bars.max_length <= bars.edges[-1] * 1.5:
        mark(axes, bars.max_length, f"max_length {bars.max_length:,}")
    axes.set_xlabel("tokens in a row", fontsize=FONT_POINTS, color=INK)
    return svg(figure, "lengths", "Rows by their length in tokens, before anything is cut")


def draw_pair(predicted: float, actual: float, described: str) -> Markup:
    """Two bars from zero, the prediction above what it came to; the longer fills the width."""
    longest = max(predicted, actual) or 1.0
    bars = Markup("").join(
        Markup('<rect x="0" y="{}" width="{}" height="5" fill="{}"></rect>').format(
            y, f"{100 * value / longest:.1f}", VARIABLES[colour]
        )
        for y, value, colour in ((1, predicted, TRAIN), (8, actual, SMOOTHED))
    )
    return Markup(
        '<svg class="chart-pair" viewBox="0 0 100 14" role="img" aria-label="{}">{}</svg>'
    ).format(described, bars)
