from __future__ import annotations

import numpy as np
import pytest

from trimtab.search.paired import paired_difference


def test_rows_that_both_find_hard_cancel() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 50, 60)
    reference = tokens * rng.lognormal(0, 1, 60)
    better = reference - 0.1 * tokens + rng.normal(0, 0.02, 60) * tokens
    found = paired_difference(better, reference, tokens)
    assert found.effect == pytest.approx(-0.1, abs=0.01)
    assert found.is_better and not found.is_within_noise
    assert found.high - found.low < 0.03


def test_a_run_against_itself_is_within_noise() -> None:
    found = paired_difference([1.0, 2.0, 5.0], [1.0, 2.0, 5.0], [1, 2, 3])
    assert (found.effect, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.is_within_noise and not found.is_better


def test_the_interval_covers_what_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        tokens = rng.integers(5, 50, 24)
        difference = tokens * rng.normal(0.05, 0.2, 24)
        found = paired_difference(difference, np.zeros(24), tokens)
        held += found.low <= 0.05 <= found.high
    assert 0.91 <= held / 400 <= 0.98


def test_one_row_gives_no_interval() -> None:
    with pytest.raises(ValueError, match="1 rows"):
        paired_difference([1.0], [1.0], [1])
