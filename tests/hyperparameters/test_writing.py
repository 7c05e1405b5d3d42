from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.hyperparameters.reading import read_text, read_value
from trimtab.hyperparameters.writing import yaml_value

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.text(st.characters(codec="utf-8") | st.sampled_from("\ud800\x00\x7f\x85\u2028\ufeff"))
    | st.sampled_from(
        ["no", "null", "1e-4", "010", "true", "", "-", "a: b", "#x", "*x", "2024-1-1"]
    )
)


@given(
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    )
)
def test_what_is_written_reads_back_the_same(value: Any) -> None:
    (setting,) = read_text(f"key: {yaml_value(value)}  # a comment\n", source="c.yaml")
    assert setting.value == value
    assert type(setting.value) is type(value)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("q_proj", "q_proj"),
        ("no", "no"),
        ("true", '"true"'),
        ("1e-4", '"1e-4"'),
        ("", '""'),
        (1e-5, "1e-05"),
        (None, "null"),
        (("q_proj", "v_proj"), "[q_proj, v_proj]"),
        ({"prompt": "question"}, "{prompt: question}"),
    ],
)
def test_plain_where_it_can_be(value: Any, written: str) -> None:
    assert yaml_value(value) == written


def test_a_tuple_reads_back_as_a_list() -> None:
    assert read_value(yaml_value(("a", "b"))) == ["a", "b"]


def test_other_things_are_refused() -> None:
    with pytest.raises(TypeError, match="no place"):
        yaml_value(object())
