"""Figures as inline SVG that takes its colours and its font from the page around it.

A Content-Security-Policy that forbids inline styles holds for the page, so every style that
matplotlib writes becomes a plain attribute, and every colour a variable of the page's style sheet.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from trimtab.report.figures import Curve, LengthBars, LossCurve
from trimtab.report.words import float_text

INK, GRID, TRAIN, SMOOTHED, HELD_OUT, RATE, BARS, MARK = (
    "#000001",
    "#000002",
    "#000003",
    "#000004",
    "#000005",
    "#000006",
    "#000007",
    "#000008",
)
_VARIABLES = {
    INK: "var(--chart-ink)",
    GRID: "var(--chart-grid)",
    TRAIN: "var(--chart-train)",
    SMOOTHED: "var(--chart-smoothed)",
    HELD_OUT: "var(--chart-held-out)",
    RATE: "var(--chart-rate)",
    BARS: "var(--chart-bars)",
    MARK: "var(--chart-mark)",
}

_WIDE_INCHES = (6.2, 2.6)
_NARROW_INCHES = (4.0, 2.2)
_FONT_POINTS = 7.0
_POINTS_WITH_MARKERS = 60
_SVG = "http://www.w3.org/2000/svg"
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
_FONT_SIZE = re.compile(r"([0-9.]+)px")


def draw_losses(curve: LossCurve) -> Markup:
    """Training loss of every update, its smoothed line, and the held-out loss."""
    figure, axes = _axes(_WIDE_INCHES)
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
        _mark(axes, curve.kept_step, f"kept: update {curve.kept_step:,}")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    described = "Training and held-out loss in nats per trainable token over weight updates"
    return _svg(figure, "losses", described)


def draw_learning_rate(curve: Curve) -> Markup:
    """The learning rate of every update that was made."""
    figure, axes = _axes(_NARROW_INCHES)
    marker = "o" if len(curve) == 1 else ""
    axes.plot(curve.x, curve.y, color=RATE, linewidth=1.5, marker=marker, markersize=2.5)
    axes.set_ylim(bottom=0, top=max(curve.y) * 1.08 or 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: float_text(value)))
    return _svg(figure, "rate", "Learning rate over weight updates")


def draw_grad_norm(curve: Curve, max_grad_norm: float | None) -> Markup:
    """The gradient norm of every update, and the norm that it is clipped to."""
    figure, axes = _axes(_NARROW_INCHES)
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
            fontsize=_FONT_POINTS,
            color=MARK,
        )
        highest = max(highest, max_grad_norm)
    axes.set_ylim(bottom=0, top=highest * 1.12 or 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: float_text(value)))
    return _svg(figure, "grad-norm", "Gradient norm before clipping over weight updates")


def draw_lengths(bars: LengthBars) -> Markup:
    """How many rows have which length."""
    figure, axes = _axes(_NARROW_INCHES)
    widths = [end - start for start, end in zip(bars.edges, bars.edges[1:], strict=False)]
    axes.bar(bars.edges[:-1], bars.counts, widths, align="edge", color=BARS, linewidth=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if bars.max_length is not None and bars.max_length <= bars.edges[-1] * 1.5:
        _mark(axes, bars.max_length, f"max_length {bars.max_length:,}")
    axes.set_xlabel("tokens in a row", fontsize=_FONT_POINTS, color=INK)
    return _svg(figure, "lengths", "Rows by their length in tokens, before anything is cut")


def draw_pair(predicted: float, actual: float, described: str) -> Markup:
    """Two bars from zero, the prediction above what it came to; the longer fills the width."""
    longest = max(predicted, actual) or 1.0
    bars = Markup("").join(
        Markup('<rect x="0" y="{}" width="{}" height="5" fill="{}"></rect>').format(
            y, f"{100 * value / longest:.1f}", _VARIABLES[colour]
        )
        for y, value, colour in ((1, predicted, TRAIN), (8, actual, SMOOTHED))
    )
    return Markup(
        '<svg class="chart-pair" viewBox="0 0 100 14" role="img" aria-label="{}">{}</svg>'
    ).format(described, bars)


def _axes(inches: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set(color=GRID, linewidth=0.8)
    axes.grid(axis="y", color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=_FONT_POINTS, labelcolor=INK, pad=4)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlabel("weight updates", fontsize=_FONT_POINTS, color=INK)
    return figure, axes


def _mark(axes: Axes, x: float, text: str) -> None:
    """A vertical line with its label, on the side where there is room."""
    axes.axvline(x, color=MARK, linewidth=0.9, linestyle=(0, (1, 2)))
    low, high = axes.get_xlim()
    is_left = (x - low) < (high - low) / 2
    axes.annotate(
        text,
        (x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4 if is_left else -4, -2),
        textcoords="offset points",
        ha="left" if is_left else "right",
        va="top",
        fontsize=_FONT_POINTS,
        color=MARK,
    )


def _svg(figure: Figure, name: str, described: str) -> Markup:
    """The figure as an SVG element; the same figure gives the same bytes."""
    written = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(written.getvalue())
    _drop(root, ("metadata", "style"))
    referenced = _referenced(root)
    for element in root.iter():
        _plain_attributes(element, referenced)
    del root.attrib["width"], root.attrib["height"]
    root.set("role", "img")
    root.set("aria-label", described)
    root.set("class", f"chart chart-{name}")
    return Markup(_serialized(root))


def _drop(root: ElementTree.Element, tags: Sequence[str]) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in tags:
                parent.remove(child)


def _referenced(root: ElementTree.Element) -> set[str]:
    """Ids that something in the drawing points at; all others could clash in the page."""
    found: set[str] = set()
    for element in root.iter():
        for value in element.attrib.values():
            found.update(re.findall(r"url\(#([^)]+)\)", value))
            if value.startswith("#"):
                found.add(value[1:])
    return found


def _plain_attributes(element: ElementTree.Element, referenced: set[str]) -> None:
    declarations = element.attrib.pop("style", "")
    for declaration in filter(None, (part.strip() for part in declarations.split(";"))):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font-family":
            continue
        if name == "font":
            size = _FONT_SIZE.search(value)
            assert size is not None, value
            name, value = "font-size", size[1]
        element.set(name, _VARIABLES.get(value, value))
    if element.get("id") not in referenced:
        element.attrib.pop("id", None)
    if _XLINK_HREF in element.attrib:
        element.set("href", element.attrib.pop(_XLINK_HREF))


def _serialized(root: ElementTree.Element) -> str:
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
    options: dict[str, Any] = {"encoding": "unicode", "short_empty_elements": False}
    return str(ElementTree.tostring(root, **options))
