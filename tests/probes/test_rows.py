from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.batches import ragged_rows
from support.tiny import save_tiny_model

from trimtab.data.batches import batch_rows
from trimtab.engine.observer import Silent
from trimtab.hyperparameters.layers import resolve
from trimtab.planning.questions import TrainingRowsQuestion
from trimtab.probes.rows import truncation_at_candidates
from trimtab.workflow.materials import Materials
from trimtab.workflow.training_rows import rows_batching


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), chat_template=None)


def write_rows(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text(
        "".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows), "utf-8"
    )
    return str(path)


def test_no_count_of_rows_is_lost(model: Path, tmp_path: Path) -> None:
    short, held_out = ("Q", "A"), ("1", "2")
    long_completion, long_prompt = ("Q", "A" * 60), ("Q" * 60, "A")
    train = write_rows(
        tmp_path / "train.jsonl", [short, held_out, held_out, long_completion, long_prompt]
    )
    held = write_rows(
        tmp_path / "eval.jsonl", [held_out, ("3", "B" * 60), ("4", "C" * 60), ("5" * 60, "D")]
    )
    asked = {"model": str(model), "dataset": train, "eval_dataset": held, "device": "cpu"}
    materials = Materials(resolve(values=asked).config, Silent())
    question = TrainingRowsQuestion(
        max_length=32,
        truncation_mode="keep_start",
        packing=False,
        num_eval_rows=4,
        eval_dataset=held,
        data_seed=0,
    )
    found = {fact.id.removeprefix("rows."): fact.value for fact in materials.answer(question)}
    expected = {
        "num_examples": 2,
        "num_truncated": 2,
        "num_rows_losing_targets": 2,
        "num_left_without_target": 1,
        "num_dropped": 1,
        "num_copies_removed": 2,
        "eval_num_examples": 3,
        "eval_num_truncated": 3,
        "eval_num_dropped": 1,
    }
    assert {name: found[name] for name in expected} == expected
    dropping = TrainingRowsQuestion(32, "drop", False, 0, "", 0)
    found = {fact.id.removeprefix("rows."): fact.value for fact in materials.answer(dropping)}
    expected = {
        "num_examples": 3,
        "num_dropped": 2,
        "num_left_without_target": 0,
        "num_copies_removed": 0,
        "eval_num_dropped": 0,
    }
    assert {name: found[name] for name in expected} == expected


def test_what_each_length_would_cut_is_counted() -> None:
    rows = ragged_rows([10] * 90 + [100] * 8 + [300, 400])
    lengths = np.array([row.num_tokens for row in rows])
    cuts = truncation_at_candidates(rows, lengths)
    assert [cut[0] for cut in cuts] == [64, 100, 128, 256, 400]
    for length, num_rows, num_tokens, num_targets in cuts:
        long = [row for row in rows if row.num_tokens > length]
        assert num_rows == len(long)
        assert num_tokens == sum(row.num_tokens - length for row in long)
        assert num_targets == sum(int(row.trainable[length:].sum()) for row in long)


@pytest.mark.parametrize("packing", [False, True])
def test_the_largest_rows_are_listed_falling(model: Path, tmp_path: Path, packing: bool) -> None:
    texts = [("Q" * n, "A" * (40 - n)) for n in range(1, 30)]
    asked = {"model": str(model), "dataset": write_rows(tmp_path / "rows.jsonl", texts)}
    materials = Materials(resolve(values={**asked, "device": "cpu"}).config, Silent())
    question = TrainingRowsQuestion(128, "keep_start", packing, 0, "", 0)
    found = {fact.id: fact.value for fact in materials.answer(question)}
    rows = materials.rows(question).train
    units = batch_rows(rows, rows_batching(question))
    for name, count in (("longest_lengths", "num_tokens"), ("most_scored", "num_trainable_tokens")):
        sums = [sum(getattr(rows[index], count) for index in unit) for unit in units]
        assert found[f"rows.{name}"] == sorted(sums, reverse=True)
    assert found["rows.num_rows"] == len(units)
    assert (len(units) < len(rows)) is packing
