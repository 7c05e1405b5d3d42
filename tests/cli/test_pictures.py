from __future__ import annotations

from trimtab.cli.pictures import bar, sparkline


def test_a_sparkline_runs_from_zero_to_the_largest() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([2e-4]) == "█"
    assert len(sparkline([float(n) for n in range(1, 1000)], width=30)) == 30


def test_a_bar_that_is_over_the_picture_ends_in_an_arrow() -> None:
    assert bar(1.0, 2.0, 10) == "█████"
    assert bar(2.0, 2.0, 10) == "█" * 10
    assert bar(2.1, 2.0, 10) == "█" * 9 + "▶"
