from __future__ import annotations

from fractions import Fraction

import pytest
from planning.facts import data, planned

from trimtab.errors import ConfigError


@pytest.mark.parametrize(
    ("num_rows", "expected"),
    [
        (1024, 51),
        (320, 16),
        (200, 16),
        (32, 16),
        (31, 0),
        (10, 0),
        (10240, 512),
        (1_000_000, 512),
    ],
)
def test_auto_holds_out_a_twentieth_within_bounds(num_rows: int, expected: int) -> None:
    plan = planned(rows=data(num_rows=num_rows))
    decision = plan.decision("eval_dataset")
    assert plan.settings().num_eval_rows == expected
    assert decision.origin == "rule"
    if expected:
        # The value, set by hand, would hold out just as many rows.
        assert round(Fraction(str(decision.value)) * num_rows) == expected
        assert f"{expected:,} of {num_rows:,}" in decision.because
    else:
        assert decision.value == "none"
        assert str(num_rows) in decision.because


def test_a_bound_that_decides_is_named() -> None:
    assert "5% would be 10" in planned(rows=data(num_rows=200)).decision("eval_dataset").because


@pytest.mark.parametrize(("fraction", "expected"), [(0.1, 102), (0.25, 256), (0.001, 1)])
def test_a_fraction(fraction: float, expected: int) -> None:
    plan = planned(eval_dataset=fraction)
    assert plan.settings().num_eval_rows == expected
    assert plan.decision("eval_dataset").value == fraction
    assert plan.decision("eval_dataset").origin == "user"


def test_a_fraction_of_no_row_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"eval_dataset 0.0001 of 1,024 rows is 0"):
        planned(eval_dataset=0.0001)


def test_none_and_no_strategy_hold_nothing_out() -> None:
    assert planned(eval_dataset="none").settings().num_eval_rows == 0
    plan = planned(eval_strategy="no")
    assert plan.decision("eval_dataset").value == "none"
    assert "eval_strategy" in plan.decision("eval_dataset").because
    assert planned(eval_strategy="no", eval_dataset=0.1).settings().num_eval_rows == 102


@pytest.mark.parametrize(("num_distinct", "is_held_out"), [(10, False), (31, False), (32, True)])
def test_nothing_is_held_out_of_copies(num_distinct: int, is_held_out: bool) -> None:
    rows = data(num_rows=200, num_duplicate_rows=200 - num_distinct)
    plan = planned(rows=rows)
    assert plan.settings().num_eval_rows == (16 if is_held_out else 0)
    told = f"200 rows, {num_distinct} of them distinct"
    assert plan.decision("eval_dataset").because.startswith(told) is not is_held_out


def test_rows_that_are_held_out_and_never_scored_are_told() -> None:
    (warning,) = planned(eval_strategy="no", eval_dataset=0.1).warnings
    assert warning == (
        "eval_dataset: its 102 rows are never scored and not trained on, since eval_strategy is no."
    )
    (warning,) = planned(
        eval_strategy="no", eval_dataset="e.jsonl", rows=data(eval_num_rows=7)
    ).warnings
    assert warning == "eval_dataset: its 7 rows are never scored, since eval_strategy is no."
    assert planned(eval_strategy="no").warnings == ()


@pytest.mark.parametrize(
    ("fact", "told"),
    [
        ("num_copies_removed", "Copies of held-out rows: 7; they are left out of training."),
        ("eval_num_truncated", "Held-out rows longer than max_length: 7 of 51;"),
        ("eval_num_dropped", "Held-out rows without a token to score within max_length: 7 of 51;"),
    ],
)
def test_what_becomes_of_held_out_rows_is_told(fact: str, told: str) -> None:
    (warning,) = planned(training_rows={fact: 7}).warnings
    assert warning.startswith(told)
    assert planned().warnings == ()
