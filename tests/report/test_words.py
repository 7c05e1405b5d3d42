"""Values as readers write them, and nothing unseen in a text."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trimtab.report.words import (
    bytes_text,
    counted,
    float_text,
    prose,
    quantity_text,
    seconds_text,
    share_text,
    value_text,
    visible,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "true"),
        (1_234_567, "1,234,567"),
        (2e-4, "2e-4"),
        (3.5e-5, "3.5e-5"),
        (0.05, "0.05"),
        (0.0, "0"),
        (-1.25e-3, "-1.25e-3"),
        (98_700_000_000.0, "98,700,000,000"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        ("text", "text"),
        ([], "none"),
        ({}, "none"),
        (["q_proj", 2, 0.5], "q_proj, 2, 0.5"),
        ({"min_lr": 1e-5}, "min_lr: 1e-5"),
        (list(range(201)), "0 … 200 (201 values)"),
    ],
)
def test_values(value: Any, text: str) -> None:
    assert value_text(value) == text


def test_units() -> None:
    assert float_text(0.123456) == "0.1235"
    assert [seconds_text(s) for s in (0.1234, 89, 90, 5399, 5400)] == [
        "0.123 s",
        "89 s",
        "1.5 min",
        "90.0 min",
        "1.5 h",
    ]
    assert [bytes_text(n) for n in (2**20, 2**30 - 2**20, 2**30)] == [
        "1 MiB",
        "1023 MiB",
        "1.00 GiB",
    ]
    assert counted(1, "row") == "1 row"
    assert counted(1024, "row") == "1,024 rows"
    assert [share_text(part, 1000) for part in (0, 4, 260, 1000)] == ["0%", "0.4%", "26%", "100%"]
    assert share_text(0, 0) == ""


def test_hidden_characters_are_shown_by_their_code() -> None:
    assert visible("a\u202eb\u2066c") == "a⟨U+202E⟩b⟨U+2066⟩c"
    assert visible("\x00\x1b[31m\x7f\x85\ufffe\ud800") == (
        "⟨U+0000⟩⟨U+001B⟩[31m⟨U+007F⟩⟨U+0085⟩⟨U+FFFE⟩⟨U+D800⟩"
    )
    plain = "line\n\ttab é 日本 👩\u200d👩 نمی\u200cخواهم"
    assert visible(plain) == plain


def test_prose_marks_names_and_escapes_everything() -> None:
    assert prose("see `max_steps` & `a<b`") == (
        "see <code>max_steps</code> &amp; <code>a&lt;b</code>"
    )
    assert prose("one ` alone <i>") == "one ` alone &lt;i&gt;"
    assert prose("`<img onerror=x>`\u202e") == ("<code>&lt;img onerror=x&gt;</code>⟨U+202E⟩")


def test_quantities_are_told_in_the_words_of_their_unit() -> None:
    assert quantity_text(2**30, "bytes") == "1.00 GiB"
    assert quantity_text(4.44e11, "FLOP/s") == "444 GFLOP/s"
    assert quantity_text(1.23e10, "bytes/s") == "12.3 GB/s"
    assert quantity_text(0.5, "s") == "0.5 s"
    assert quantity_text(300, "seconds") == "5.0 min"
    assert quantity_text(1234, "tokens") == "1,234 tokens"
    assert quantity_text(True, None) == "true"
    assert quantity_text(True, "bytes") == "true bytes"
