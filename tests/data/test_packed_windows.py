"""Rows that are packed as the run goes: a window at a time, and taken up again anywhere."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.batches import SMALL_BATCHING
from support.streamed import streamed, told

from trimtab.data import updates as updates_module
from trimtab.data.streaming import StreamedRows
from trimtab.data.updates import DataPosition, Update, updates, within_epoch
from trimtab.hyperparameters.config import TrainingConfig

BATCHING = replace(SMALL_BATCHING, packing=True, max_length=40)
NUM_ROWS = 150
WINDOW_ROWS = 32
START = DataPosition(0, 0)


def packable_rows(path: Path, num_rows: int, too_long: int | None = None) -> StreamedRows:
    """Rows of 8 to 20 tokens; that at `too_long` has its first target behind `max_length`."""
    lines = []
    for number in range(num_rows):
        prompt = "lazy " * (90 if number == too_long else 1 + number % 5)
        lines.append(json.dumps({"prompt": prompt, "completion": "dog " * (1 + number % 7)}))
    path.write_text("\n".join(lines))
    values: dict[str, Any] = {"model": "m", "dataset": str(path), "chat_template": "none"}
    config = TrainingConfig.model_validate(values)
    rows = streamed(config)[1].rows
    assert isinstance(rows, StreamedRows)
    return rows.chosen(np.arange(num_rows), BATCHING.max_length, refuses_long=False)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates_module, "PACKED_WINDOW_ROWS", WINDOW_ROWS)


def epochs(rows: StreamedRows, num_epochs: int, start: DataPosition = START) -> list[Update]:
    return list(
        itertools.takewhile(lambda each: each.epoch <= num_epochs, updates(rows, BATCHING, start))
    )


def test_each_row_once_an_epoch_in_another_order_in_the_next(tmp_path: Path) -> None:
    made = epochs(packable_rows(tmp_path / "rows.jsonl", NUM_ROWS), 2)
    orders = [
        [row for update in made if epoch < update.epoch <= epoch + 1 for row in update.row_ids]
        for epoch in range(2)
    ]
    for order in orders:
        assert Counter(order) == Counter(range(NUM_ROWS))
    assert orders[0] != orders[1]


def test_only_an_epochs_last_update_is_not_full(tmp_path: Path) -> None:
    made = epochs(packable_rows(tmp_path / "rows.jsonl", NUM_ROWS), 1)
    assert made[-1].epoch == 1.0
    assert made[-1].position == DataPosition(1, 0)
    shares = [update.epoch for update in made]
    assert shares == pytest.approx(
        [
            sum(len(each.row_ids) for each in made[: index + 1]) / NUM_ROWS
            for index in range(len(made))
        ]
    )
    for update in made[:-1]:
        # Two packed rows a micro-batch, of at most 40 tokens each.
        assert len(update.micro_batches) == 2
        assert all(40 < batch.num_tokens <= 80 for batch in update.micro_batches)


def test_it_goes_on_exactly_from_every_position(tmp_path: Path) -> None:
    rows = packable_rows(tmp_path / "rows.jsonl", NUM_ROWS, too_long=7)
    whole = epochs(rows, 2)
    made = [told(update) for update in whole]
    positions = [update.position for update in whole]
    assert any(position.carried for position in positions)
    assert any(position.update_in_window and position.window_start for position in positions)
    for index, position in enumerate(positions[:-1]):
        assert told(next(updates(rows, BATCHING, position))) == made[index + 1]


def test_a_row_that_is_passed_over_is_told_once_an_epoch(tmp_path: Path) -> None:
    made = epochs(packable_rows(tmp_path / "rows.jsonl", NUM_ROWS, too_long=7), 1)
    assert [row.line for update in made for row in update.passed_over] == [8]
    assert sorted(row for update in made for row in update.row_ids) == [
        row for row in range(NUM_ROWS) if row != 7
    ]
    assert made[-1].epoch == 1.0


def test_windows_too_small_for_an_update_wait_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates_module, "PACKED_WINDOW_ROWS", 3)
    made = epochs(packable_rows(tmp_path / "rows.jsonl", 40), 1)
    assert sorted(row for update in made for row in update.row_ids) == list(range(40))
    assert {len(update.micro_batches) for update in made[:-1]} == {2}


def test_a_position_of_other_rows_begins_the_next_epoch(tmp_path: Path) -> None:
    rows = packable_rows(tmp_path / "rows.jsonl", NUM_ROWS)
    *_, inside, _ = [update.position for update in epochs(rows, 1)]
    assert within_epoch(inside, rows, BATCHING) == inside
    fewer = packable_rows(tmp_path / "fewer.jsonl", 20)
    assert within_epoch(inside, fewer, BATCHING) == DataPosition(1, 0)
    assert within_epoch(DataPosition(2, 99), rows, BATCHING) == DataPosition(3, 0)
