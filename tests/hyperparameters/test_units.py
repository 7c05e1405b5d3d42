from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.hyperparameters.units import SIZE_PATTERN, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("written", "num_bytes"),
    [
        ("6GiB", 6 * 1024**3),
        ("6GB", 6 * 1000**3),
        ("6 gib", 6 * 1024**3),
        ("1.5GiB", 1536 * 1024**2),
        ("500MB", 500_000_000),
        ("2TiB", 2 * 1024**4),
        ("7B", 7),
        (12345, 12345),
    ],
)
def test_sizes(written: str | int, num_bytes: int) -> None:
    assert parse_bytes(written) == num_bytes


@pytest.mark.parametrize(
    "written",
    ["6 bananas", "6G", "GiB", "", "-6GiB", "0GiB", 0, -1, "6iB", "1e9B", "6GiB 7", "٦GiB"],
)
def test_nonsense_is_refused(written: str | int) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(written))):
        parse_bytes(written)


@given(st.from_regex(SIZE_PATTERN, fullmatch=True).filter(lambda text: text[-1] != "\n"))
def test_what_the_schema_takes_is_parsed_unless_it_is_nothing(written: str) -> None:
    try:
        assert parse_bytes(written) > 0
    except ValueError as error:
        assert "not a positive number" in str(error)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (512, "512 B"),
        (2048, "2.0 KiB"),
        (6 * 1024**3, "6.0 GiB"),
        (1536 * 1024**2, "1.5 GiB"),
        (3 * 1024**4, "3.0 TiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_sizes_as_text(num_bytes: int, text: str) -> None:
    assert format_bytes(num_bytes) == text
