from __future__ import annotations

import pytest

from trimtab.planning.rules.ruling import counted, percent, rounded


@pytest.mark.parametrize(
    ("part", "expected"),
    [(0, "0%"), (0.0123, "0.012%"), (3.631, "3.6%"), (9.96, "10.0%"), (10, "10%"), (79.2, "79%")],
)
def test_percent(part: float, expected: str) -> None:
    assert percent(part, 100) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(3.5355e-4, 3.5e-4), (0.0995, 0.1), (123.0, 120.0), (1e-3, 1e-3)]
)
def test_two_significant_digits(value: float, expected: float) -> None:
    assert rounded(value) == expected


def test_counted() -> None:
    assert [counted(n, "row") for n in (0, 1, 1024)] == ["0 rows", "1 row", "1,024 rows"]
