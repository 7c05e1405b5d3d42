from __future__ import annotations

import pytest

from trimtab.errors import DataError
from trimtab.search.halves import halves


def test_halves_share_no_row_and_lose_none() -> None:
    split = halves(101, seed=7)
    assert sorted([*split.search, *split.test]) == list(range(101))
    assert (len(split.search), len(split.test)) == (50, 51)
    assert split == halves(101, seed=7) != halves(101, seed=8)


def test_too_few_rows_are_refused_with_the_way_out() -> None:
    with pytest.raises(DataError, match=r"15 rows are held out.*Set eval_dataset"):
        halves(15, seed=0)
