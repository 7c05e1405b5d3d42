"""Rows that are made as they are asked for are those that are made beforehand."""

from __future__ import annotations

import gzip
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.batches import SMALL_BATCHING
from support.runs import write_rows
from support.streamed import streamed, told
from support.tiny import CHATML, tiny_tokenizer

from trimtab.data import streaming
from trimtab.data import updates as updates_module
from trimtab.data.corpus import load_corpus
from trimtab.data.split import hold_out
from trimtab.data.streaming import is_streamed, split_places
from trimtab.data.updates import DataPosition, Update, updates
from trimtab.errors import DataError
from trimtab.hyperparameters.config import TrainingConfig

BATCHING = replace(SMALL_BATCHING, max_length=20, pad_token_id=0, data_seed=3)
NO_CONTENTS = np.zeros(0, dtype=np.int64)


def configured(path: Path, **values: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"model": "m", "dataset": str(path), **values})


def write_lines(path: Path, completions: list[str]) -> Path:
    rows = [{"prompt": f"the fox {n}", "completion": text} for n, text in enumerate(completions)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("start", [DataPosition(0, 0), DataPosition(0, 3), DataPosition(1, 5)])
def test_batches_are_those_of_rows_tokenised_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: DataPosition
) -> None:
    monkeypatch.setattr(updates_module, "WINDOW_ROWS", 9)
    config = configured(write_rows(tmp_path / "rows.jsonl", 31))
    _, corpus = streamed(config)
    whole = load_corpus(config, config.dataset, tiny_tokenizer())
    assert list(corpus.conversations) == list(whole.conversations)
    assert list(corpus.sources) == list(whole.sources)
    made = [
        [told(update) for update in itertools.islice(updates(rows, BATCHING, start), 18)]
        for rows in (corpus.rows, whole.rows)
    ]
    assert made[0] == made[1]


def test_marks_and_empty_lines_move_no_row(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", ["one", "two", "zwölf"])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n").rstrip())
    index, _ = streamed(configured(path))
    assert [row.columns["completion"] for row in index.rows([2, 0, 1])] == ["zwölf", "one", "two"]
    assert [index.where(place) for place in range(3)] == [f"{path}:{line}" for line in (1, 3, 5)]


def test_the_same_rows_are_held_out_and_their_copies_left_out(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 30)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines + lines[:12]))
    config = configured(path)
    index, _ = streamed(config)
    whole = load_corpus(config, config.dataset, tiny_tokenizer())
    expected = hold_out(whole.rows, 9, data_seed=4)
    split = split_places(index, 9, 4, NO_CONTENTS)
    assert expected.num_duplicates_removed > 0
    assert split.num_duplicates_removed == expected.num_duplicates_removed
    assert split.train.tolist() == [row.row_id for row in expected.train_rows]
    assert split.eval.tolist() == [row.row_id for row in expected.eval_rows]
    # Rows of a dataset of its own take theirs out too.
    others = split_places(index, 0, 4, index.contents[:1])
    assert others.num_duplicates_removed == 2


def first_after(config: TrainingConfig, max_length: int = 64) -> list[Update]:
    _, corpus = streamed(config)
    assert isinstance(corpus.rows, streaming.StreamedRows)
    every = np.arange(len(corpus.rows))
    refuses = config.truncation_mode == "error"
    rows = corpus.rows.chosen(every, max_length, refuses_long=refuses)
    return list(itertools.islice(updates(rows, BATCHING, DataPosition(0, 0)), 8))


REFUSING = (
    "{% for message in messages %}{% if message['content'] == 'refused' %}"
    "{{ raise_exception('no') }}{% endif %}{% endfor %}" + CHATML
)


def with_refused_row(folder: Path, monkeypatch: pytest.MonkeyPatch, **values: Any) -> Path:
    """A row that only the template refuses, and that no sample holds."""
    from trimtab.data import sampling

    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 4)
    monkeypatch.setattr(sampling, "MIN_SAMPLED_ROWS", 1)
    monkeypatch.setattr(sampling, "NUM_LARGEST_ROWS", 1)
    (folder / "template.jinja").write_text(REFUSING)
    return write_lines(folder / "rows.jsonl", ["answers"] * 17 + ["refused"] + ["answers"] * 6)


def test_a_row_that_cannot_be_trained_on_is_named_before_its_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_refused_row(tmp_path, monkeypatch)
    monkeypatch.setattr(updates_module, "WINDOW_ROWS", 4)
    config = configured(path, chat_template=str(tmp_path / "template.jinja"))
    _, corpus = streamed(config)
    seen: list[int] = []
    with pytest.raises(DataError, match=r"refuses it: no.*on_bad_row: skip") as refused:
        for update in itertools.islice(updates(corpus.rows, BATCHING, DataPosition(0, 0)), 6):
            seen += update.row_ids
    assert refused.value.where == f"{path}:18"
    assert 17 not in seen
    assert len(seen) % 4 == 0


def test_or_passed_over_and_told_with_its_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_refused_row(tmp_path, monkeypatch)
    template = str(tmp_path / "template.jinja")
    made = first_after(configured(path, chat_template=template, on_bad_row="skip"))[:6]
    assert sorted(row for update in made for row in update.row_ids) == [
        row for row in range(24) if row != 17
    ]
    (told_with,) = [update for update in made if update.passed_over]
    assert len(told_with.row_ids) == 3
    assert [row.where for row in told_with.passed_over] == [f"{path}:18"]


def test_rows_are_cut_and_those_left_without_a_target_passed_over(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", ["dog"] * 7)
    long_prompt = json.dumps({"prompt": "lazy " * 90, "completion": "dog"})
    path.write_text(path.read_text() + long_prompt + "\n")
    made = first_after(configured(path, chat_template="none"), max_length=24)[:2]
    assert sorted(row for update in made for row in update.row_ids) == list(range(7))
    (passed,) = [row for update in made for row in update.passed_over]
    assert (passed.where, passed.reason) == (
        f"{path}:8",
        "no token to train on within max_length 24",
    )
    with pytest.raises(DataError, match="over max_length 24") as refused:
        first_after(configured(path, chat_template="none", truncation_mode="error"), max_length=24)
    assert refused.value.where == f"{path}:8"


def test_where_every_row_is_passed_over_the_run_ends(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", ["dog"] * 5)
    with pytest.raises(DataError, match="all were passed over"):
        first_after(configured(path, chat_template="none"), max_length=2)


def test_a_file_that_changes_under_a_run_is_told(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", ["dog", "fox", "cat"])
    _, corpus = streamed(configured(path))
    path.write_text(path.read_text().replace('"fox"', '"fax"'))
    assert corpus.rows[0].num_tokens > 0
    with pytest.raises(DataError, match="not what it was") as changed:
        _ = corpus.rows[1]
    assert changed.value.where == f"{path}:2"


def test_long_plain_files_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MIN_STREAMED_ROWS", 8)
    plain = write_lines(tmp_path / "rows.jsonl", ["dog"] * 8)
    assert is_streamed(configured(plain))
    assert not is_streamed(configured(write_lines(tmp_path / "few.jsonl", ["dog"] * 7)))
    assert is_streamed(configured(plain, packing=True))
    assert not is_streamed(configured(plain, truncation_mode="split"))
    assert not is_streamed(configured(Path("owner/name")))
    for name in ("rows.jsonl.gz", "rows.jsonl.GZ"):
        zipped = tmp_path / name
        zipped.write_bytes(gzip.compress(plain.read_bytes(), compresslevel=0))
        assert not is_streamed(configured(zipped))
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        write_lines(folder / name, ["dog"] * 4)
    assert is_streamed(configured(folder))
