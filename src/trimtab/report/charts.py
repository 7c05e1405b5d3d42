"""The frame of every figure: inline SVG that takes its colours and its font from the page.

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
VARIABLES = {
    INK: "var(--chart-ink)",
    GRID: "var(--chart-grid)",
    TRAIN: "var(--chart-train)",
    SMOOTHED: "var(--chart-smoothed)",
    HELD_OUT: "var(--chart-held-out)",
    RATE: "var(--chart-rate)",
    BARS: "var(--chart-bars)",
    MARK: "var(--chart-mark)",
}

WIDE_INCHES = (6.2, 2.6)
NARROW_INCHES = (4.0, 2.2)
FONT_POINTS = 7.0
_SVG = "http://www.w3.org/2000/svg"
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
_FONT_SIZE = re.compile(r"([0-9.]+)px")


def new_axes(inches: tuple[float, float]) -> tuple[Figure, Axes]:
    """Empty axes over weight updates; draw on them and give the figure to `svg`."""
    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set(color=GRID, linewidth=0.8)
    axes.grid(axis="y", color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=FONT_POINTS, labelcolor=INK, pad=4)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlabel("weight updates", fontsize=FONT_POINTS, color=INK)
    return figure, axes


def mark(axes: Axes, x: float, text: str) -> None:
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
        fontsize=FONT_POINTS,
        color=MARK,
    )


def svg(figure: Figure, name: str, described: str) -> Markup:
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
        element.set(name, VARIABLES.get(value, value))
    if element.get("id") not in referenced:
        element.attrib.pop("id", None)
    if _XLINK_HREF in element.attrib:
        element.set("href", element.attrib.pop(_XLINK_HREF))


def _serialized(root: ElementTree.Element) -> str:
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
    options: dict[str, Any] = {"encoding": "unicode", "short_empty_elements": False}
    return str(ElementTree.tostring(root, **options))
