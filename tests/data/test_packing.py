"""Bins are full, whole and the same each time."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.data.packing import best_fit_decreasing


def test_finds_the_perfect_packing_where_first_fit_in_order_does_not() -> None:
    lengths = [4, 6, 3, 7, 5, 5]
    bins = best_fit_decreasing(lengths, 10)
    assert [sorted(lengths[i] for i in b) for b in bins] == [[3, 7], [4, 6], [5, 5]]


def test_takes_the_fullest_bin_that_still_holds_the_example() -> None:
    # After 7 and 6, the 3 fits both rooms 3 and 4: best fit closes the first.
    lengths = [7, 6, 3, 4]
    assert best_fit_decreasing(lengths, 10) == [[0, 2], [1, 3]]


@given(
    st.lists(st.integers(1, 64), max_size=200),
    st.integers(64, 100),
)
@settings(max_examples=100, deadline=None)
def test_every_example_once_and_none_over_capacity(lengths: list[int], capacity: int) -> None:
    bins = best_fit_decreasing(lengths, capacity)
    assert sorted(i for b in bins for i in b) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in b) <= capacity for b in bins)
    least = math.ceil(sum(lengths) / capacity)
    # Any two bins together hold more than one bin does, so at most one is under half full.
    assert len(bins) <= 2 * least


def test_many_random_lengths_leave_almost_no_room() -> None:
    generator = random.Random(0)
    lengths = [generator.randint(20, 500) for _ in range(5000)]
    bins = best_fit_decreasing(lengths, 2048)
    assert sum(lengths) / (len(bins) * 2048) > 0.995


def test_the_number_of_bins_does_not_depend_on_the_order() -> None:
    generator = random.Random(1)
    lengths = [generator.randint(1, 90) for _ in range(300)]
    expected = len(best_fit_decreasing(lengths, 100))
    for _ in range(5):
        generator.shuffle(lengths)
        assert len(best_fit_decreasing(lengths, 100)) == expected


@pytest.mark.parametrize("length", [0, 11])
def test_a_length_that_cannot_be_packed_is_refused_by_index(length: int) -> None:
    with pytest.raises(ValueError, match=f"length {length} at index 1"):
        best_fit_decreasing([5, length], 10)
