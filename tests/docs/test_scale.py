"""docs/scale.md is what its script writes, and its predictions are as near as it says."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scale

    yield scale
    for name in ("scale", "published_speeds"):
        sys.modules.pop(name, None)


def test_the_page_is_up_to_date(scale: ModuleType) -> None:
    page = scale.PAGE.read_text(encoding="utf-8")
    assert scale.rendered(page) == page, "run `python benchmarks/scale.py`"


def test_nine_of_ten_scored_rows_are_within_a_quarter(scale: ModuleType) -> None:
    scored = [
        row
        for index, row in enumerate(scale.published_rows())
        if not scale.is_for_fitting(index, row)
    ]
    num_near = sum(abs(scale.error(row)) <= 0.25 for row in scored)
    assert len(scored) > 50
    assert num_near >= 0.9 * len(scored)
