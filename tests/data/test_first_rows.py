"""Updates of a long file's first rows alone are those of the whole file."""

from __future__ import annotations

import itertools
import json
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.batches import SMALL_BATCHING
from support.streamed import streamed, told

from trimtab.data import updates as updates_module
from trimtab.data.batches import Batching
from trimtab.data.first_rows import MadeOnce, first_rows
from trimtab.data.rows import TokenRow
from trimtab.data.streaming import StreamedRows
from trimtab.data.updates import DataPosition, updates
from trimtab.hyperparameters.config import TrainingConfig

PADDED = replace(SMALL_BATCHING, max_length=40)
PACKED = replace(PADDED, packing=True, packs_in_windows=True)
NUM_ROWS = 90


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StreamedRows:
    """Some of which are passed over, since their first target is behind `max_length`."""
    monkeypatch.setattr(updates_module, "PACKED_WINDOW_ROWS", 16)
    monkeypatch.setattr(updates_module, "WINDOW_ROWS", 16)
    path = tmp_path / "rows.jsonl"
    lines = [
        {"prompt": "lazy " * (90 if n % 9 == 0 else 1 + n % 5), "completion": "dog " * (1 + n % 7)}
        for n in range(NUM_ROWS)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    values: dict[str, Any] = {"model": "m", "dataset": str(path), "chat_template": "none"}
    made = streamed(TrainingConfig.model_validate(values))[1].rows
    assert isinstance(made, StreamedRows)
    return made.chosen(np.arange(NUM_ROWS), PADDED.max_length, refuses_long=False)


def batches(rows: Any, batching: Batching, number: int) -> list[Any]:
    made = itertools.islice(updates(rows, batching, DataPosition(0, 0)), number)
    return [told(update)[0] for update in made]


@pytest.mark.parametrize("batching", [PADDED, PACKED], ids=["padded", "packed"])
@pytest.mark.parametrize("number", [1, 3, 4, 30])
def test_updates_are_those_of_the_file(rows: StreamedRows, batching: Batching, number: int) -> None:
    first = first_rows(rows, batching, number)
    assert (len(first) == NUM_ROWS) == (number == 30)
    assert batches(first, batching, number) == batches(rows, batching, number)


def test_rows_are_made_once_and_handed_over_made() -> None:
    made: list[int] = []

    def make() -> tuple[TokenRow, ...]:
        made.append(1)
        return (TokenRow(7, np.arange(2, dtype=np.int32), np.ones(2, dtype=np.bool_)),)

    rows = MadeOnce(make)
    assert not made
    assert (len(rows), rows[0].row_id) == (1, 7)
    (handed_over,) = copy(rows)
    assert handed_over.row_id == 7
    assert made == [1]
