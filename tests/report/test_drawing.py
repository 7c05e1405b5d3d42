"""The drawings hold what their data hold, the same bytes each time, and no style of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from xml.etree import ElementTree

import pytest
from markupsafe import Markup
from support.run_folders import evaluations, updates

from trimtab.report.drawing import (
    draw_grad_norm,
    draw_learning_rate,
    draw_lengths,
    draw_losses,
    draw_pair,
)
from trimtab.report.figures import Curve, LengthBars, LossCurve, loss_curve

CURVE = Curve((1.0, 2.0, 3.0, 4.0), (3e-4, 2e-4, 1e-4, 0.0))
BARS = LengthBars((0, 64, 128, 192), (5, 10, 1), 128)


def losses() -> LossCurve:
    curve = loss_curve(updates(), evaluations(), 45)
    assert curve is not None
    return curve


DRAWINGS: dict[str, Callable[[], Markup]] = {
    "losses": lambda: draw_losses(losses()),
    "rate": lambda: draw_learning_rate(CURVE),
    "norm": lambda: draw_grad_norm(Curve((1, 2), (0.5, 3.0)), 1.0),
    "lengths": lambda: draw_lengths(BARS),
    "pair": lambda: draw_pair(2.0, 3.0, "predicted 2 s, actual 3 s"),
}


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [element.text or "" for element in root.iter() if element.tag == "text"]


def strokes(svg: str, variable: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(svg)
    return [element for element in root.iter() if element.get("stroke") == f"var(--{variable})"]


@pytest.mark.parametrize("name", DRAWINGS)
def test_is_one_element_without_style_script_or_link_and_the_same_each_time(name: str) -> None:
    svg = DRAWINGS[name]()
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.get("role") == "img" and root.get("aria-label")
    assert "width" not in root.attrib and root.get("viewBox")
    for element in root.iter():
        assert element.tag not in {"style", "script", "metadata", "image", "a"}
        assert "style" not in element.attrib and "font-family" not in element.attrib
        assert not any(key.startswith("on") for key in element.attrib)
        assert element.get("href", "#").startswith("#")
    assert DRAWINGS[name]() == svg


def test_no_id_is_in_two_drawings_and_every_reference_leads_somewhere() -> None:
    seen: set[str] = set()
    for draw in DRAWINGS.values():
        svg = draw()
        ids = set(re.findall(r' id="([^"]+)"', svg))
        assert not ids & seen
        referenced = set(re.findall(r"url\(#([^)]+)\)", svg))
        referenced |= set(re.findall(r'href="#([^"]+)"', svg))
        assert referenced == ids
        seen |= ids


def test_every_colour_is_a_variable_that_the_style_sheet_has_for_light_and_dark() -> None:
    style = files("trimtab.report").joinpath("templates", "page.css").read_text(encoding="utf-8")
    light, dark = style.split("prefers-color-scheme: dark", 1)
    for draw in DRAWINGS.values():
        svg = draw()
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
        for variable in set(re.findall(r"var\((--[a-z-]+)\)", svg)):
            assert f"{variable}: #" in light
            assert f"{variable}: #" in dark.split("*, *::before")[0]


def test_losses_draw_each_line_the_held_out_points_and_the_kept_update() -> None:
    svg = draw_losses(losses())
    assert len(strokes(svg, "chart-smoothed")) == 1
    (train,) = strokes(svg, "chart-train")
    assert len(re.findall("[ML] ", train.get("d", ""))) >= 50
    root = ElementTree.fromstring(svg)
    points = [one for one in root.iter("use") if one.get("fill") == "var(--chart-held-out)"]
    assert len(points) == len(evaluations())
    assert "kept: update 45" in texts(svg)
    assert "weight updates" in texts(svg)


def test_a_run_of_one_update_is_a_visible_point() -> None:
    svg = draw_losses(LossCurve(Curve((1.0,), (2.0,)), Curve((), ()), Curve((), ()), None, 0))
    root = ElementTree.fromstring(svg)
    assert [one for one in root.iter("use") if one.get("fill") == "var(--chart-train)"]
    assert not strokes(svg, "chart-smoothed") and not strokes(svg, "chart-held-out")


def test_constant_and_zero_rates_draw_without_a_warning() -> None:
    assert "0" in texts(draw_learning_rate(Curve((1.0, 2.0), (0.0, 0.0))))
    assert "2e-4" in texts(draw_learning_rate(Curve((1.0, 2.0), (2e-4, 2e-4))))


def test_the_clipping_norm_is_drawn_where_it_is_near() -> None:
    assert "clipped to 1" in texts(DRAWINGS["norm"]())
    far = draw_grad_norm(Curve((1, 2), (0.1, 0.2)), 1.0)
    assert not any("clipped" in text for text in texts(far))


def test_bars_are_as_many_as_bins_and_as_high_as_counts() -> None:
    svg = draw_lengths(BARS)
    root = ElementTree.fromstring(svg)
    bars = [one for one in root.iter("path") if one.get("fill") == "var(--chart-bars)"]
    heights = []
    for bar in bars:
        ys = [float(y) for _, y in re.findall(r"[ML] ([0-9.]+) ([0-9.]+)", bar.get("d", ""))]
        heights.append(max(ys) - min(ys))
    assert [height / heights[0] for height in heights] == pytest.approx([1, 2, 0.2], abs=1e-3)
    assert "max_length 128" in texts(svg)
    far = draw_lengths(replace(BARS, max_length=100_000))
    assert not any("max_length" in text for text in texts(far))
