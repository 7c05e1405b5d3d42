"""Held-out rows are drawn by the seed and never trained on."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.data.rows import TokenRow
from trimtab.data.split import hold_out, num_duplicate_rows, without_copies
from trimtab.errors import DataError


def row(row_id: int, *ids: int) -> TokenRow:
    trainable = np.arange(len(ids)) > 0
    return TokenRow(row_id, np.array(ids, dtype=np.int32), trainable)


ROWS = [row(i, 1, i, i + 1) for i in range(50)]


def ids(rows: tuple[TokenRow, ...]) -> list[int]:
    return [item.row_id for item in rows]


def test_both_sides_are_disjoint_ordered_and_whole() -> None:
    held = hold_out(ROWS, 12, 3)
    assert len(held.eval_rows) == 12
    assert ids(held.eval_rows) == sorted(ids(held.eval_rows))
    assert ids(held.train_rows) == sorted(ids(held.train_rows))
    assert sorted(ids(held.train_rows) + ids(held.eval_rows)) == list(range(50))
    assert held.num_duplicates_removed == 0


def test_the_seed_decides() -> None:
    assert ids(hold_out(ROWS, 12, 3).eval_rows) == ids(hold_out(ROWS, 12, 3).eval_rows)
    assert ids(hold_out(ROWS, 12, 3).eval_rows) != ids(hold_out(ROWS, 12, 4).eval_rows)


def test_nothing_held_out() -> None:
    held = hold_out(ROWS, 0, 3)
    assert ids(held.train_rows) == list(range(50))
    assert held.eval_rows == ()


def test_copies_of_held_out_rows_leave_training_and_are_counted() -> None:
    doubled = [*ROWS, *(row(50 + i, 1, i, i + 1) for i in range(50))]
    held = hold_out(doubled, 10, 0)
    held_out = {item.input_ids.tobytes() for item in held.eval_rows}
    assert not held_out & {item.input_ids.tobytes() for item in held.train_rows}
    assert held.num_duplicates_removed > 0
    assert len(held.train_rows) + len(held.eval_rows) + held.num_duplicates_removed == 100


def test_rows_of_another_file_are_compared_too() -> None:
    held = without_copies(ROWS, [row(0, 1, 7, 8), row(1, 9, 9)])
    assert held.num_duplicates_removed == 1
    assert 7 not in ids(held.train_rows)


@pytest.mark.parametrize("count", [50, 51])
def test_holding_out_everything_is_refused(count: int) -> None:
    with pytest.raises(DataError, match=f"{count} rows cannot be held out of 50"):
        hold_out(ROWS, count, 0)


def test_training_on_copies_alone_is_refused() -> None:
    with pytest.raises(DataError, match="copy of a held-out row"):
        hold_out([row(i, 1, 2, 3) for i in range(5)], 2, 0)


def test_duplicates_are_counted_once_each() -> None:
    assert num_duplicate_rows(ROWS) == 0
    assert num_duplicate_rows([row(0, 1, 2), row(1, 1, 2), row(2, 1, 2), row(3, 2, 1)]) == 2
