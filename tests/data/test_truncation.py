"""Each way to shorten a row, and its counts."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.data.rows import TokenRow
from trimtab.data.truncation import TruncationCounts, truncate
from trimtab.errors import DataError


def row(row_id: int, length: int, prompt: int) -> TokenRow:
    """Ids 0, 1, 2…; trained on after the prompt."""
    return TokenRow(row_id, np.arange(length, dtype=np.int32), np.arange(length) >= prompt)


FITS, LOSES_SOME, LOSES_ALL = row(0, 6, 3), row(1, 10, 3), row(2, 12, 9)
ROWS = [FITS, LOSES_SOME, LOSES_ALL]


def test_keep_start_cuts_counts_and_drops_what_lost_its_target() -> None:
    kept, counts = truncate(ROWS, 8, "keep_start")
    assert [(item.row_id, item.num_tokens) for item in kept] == [(0, 6), (1, 8)]
    assert kept[1].input_ids.tolist() == list(range(8))
    assert kept[1].num_trainable_tokens == 5
    assert counts == TruncationCounts(
        num_truncated=2,
        num_tokens_cut=2 + 12,
        num_trainable_tokens_cut=2 + 3,
        num_rows_losing_targets=2,
        num_dropped=0,
        num_left_without_target=1,
        row_ids_left_without_target=(2,),
    )


def test_a_row_of_exactly_the_limit_is_whole() -> None:
    kept, counts = truncate([FITS], 6, "error")
    assert kept == (FITS,)
    assert counts == TruncationCounts(0, 0, 0, 0, 0, 0, ())


def test_drop_leaves_long_rows_out() -> None:
    kept, counts = truncate(ROWS, 8, "drop")
    assert [item.row_id for item in kept] == [0]
    assert counts.num_dropped == 2
    assert (counts.num_truncated, counts.num_tokens_cut) == (0, 0)


def test_split_keeps_ids_and_targets_except_where_nothing_stands_before() -> None:
    kept, counts = truncate([LOSES_SOME], 4, "split")
    assert [item.row_id for item in kept] == [1, 1, 1]
    assert [item.input_ids.tolist() for item in kept] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [item.trainable.tolist() for item in kept] == [
        [False, False, False, True],
        [False, True, True, True],
        [False, True],
    ]
    assert counts.num_truncated == 1
    assert counts.num_tokens_cut == 0
    assert counts.num_trainable_tokens_cut == 2
    assert counts.num_rows_losing_targets == 1


def test_split_drops_pieces_without_a_target() -> None:
    kept, counts = truncate([row(5, 9, 6)], 4, "split")
    # Pieces 0–3 (prompt alone), 4–7, 8 (a first token alone).
    assert [item.input_ids.tolist() for item in kept] == [[4, 5, 6, 7]]
    assert counts.num_left_without_target == 2
    assert counts.row_ids_left_without_target == (5,)
    assert counts.num_tokens_cut == 5
    assert counts.num_trainable_tokens_cut == 1


def test_the_source_rows_are_not_changed() -> None:
    before = LOSES_SOME.trainable.copy()
    truncate([LOSES_SOME], 4, "split")
    assert (LOSES_SOME.trainable == before).all()


def test_error_names_rows_and_lengths() -> None:
    long_rows = [row(i, 1200 + i, 1) for i in range(7)]
    with pytest.raises(DataError) as caught:
        truncate(long_rows, 100, "error")
    assert "7 rows are longer than max_length 100: row 0 (1,200 tokens)" in str(caught.value)
    assert "row 4 (1,204 tokens) and 2 more" in str(caught.value)


@pytest.mark.parametrize("mode", ["keep_start", "drop"])
def test_no_row_left_is_an_error(mode: str) -> None:
    with pytest.raises(DataError, match="no row is left to train on"):
        truncate([LOSES_ALL], 8, mode)  # type: ignore[arg-type]
