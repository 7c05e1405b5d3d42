"""Rows that were not tokenised have lengths by their size; the others their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.tiny import tiny_tokenizer

from trimtab.data import estimates, sampling
from trimtab.data.corpus import load_corpus, tokenized
from trimtab.data.estimates import EstimatedCorpus, estimate
from trimtab.data.sampling import sample_dataset
from trimtab.hyperparameters.config import TrainingConfig

WORDS = ("quick", "brown", "fox", "jumps", "over", "lazy", "dog", "and", "answers", "question")


def write_rows(path: Path, num_rows: int) -> Path:
    generator = np.random.Generator(np.random.PCG64(3))
    with path.open("w") as file:
        for _ in range(num_rows):
            words = generator.choice(WORDS, size=int(generator.integers(4, 40)))
            row = {"prompt": " ".join(words[:3]), "completion": " ".join(words[3:])}
            file.write(json.dumps(row) + "\n")
    return path


def configured(path: Path, **values: str) -> TrainingConfig:
    return TrainingConfig.model_validate({"model": "m", "dataset": str(path), **values})


def estimated(config: TrainingConfig) -> EstimatedCorpus:
    sample = sample_dataset(config, config.dataset)
    return estimate(sample, tokenized(sample.read, config, config.dataset, tiny_tokenizer()))


def test_a_small_file_is_known_exactly(tmp_path: Path) -> None:
    config = configured(write_rows(tmp_path / "rows.jsonl", 30))
    found = estimated(config)
    expected = load_corpus(config, config.dataset, tiny_tokenizer())
    for row, other in zip(found.corpus.rows, expected.rows, strict=True):
        assert row.row_id == other.row_id
        assert np.array_equal(row.input_ids, other.input_ids)
        assert np.array_equal(row.trainable, other.trainable)
    assert found.corpus.num_duplicate_rows == expected.num_duplicate_rows
    assert (found.num_tokenised, found.num_rows, found.rows_each_stands_for) == (30, 30, 1)


def test_the_rest_follows_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 64)
    config = configured(write_rows(tmp_path / "rows.jsonl", 500))
    found = estimated(config)
    expected = load_corpus(config, config.dataset, tiny_tokenizer())
    assert found.num_tokenised < 80
    assert len(found.corpus.rows) == found.num_rows == 500
    assert found.corpus.num_tokens == pytest.approx(expected.num_tokens, rel=0.02)
    trainable = found.corpus.num_trainable_tokens
    assert trainable == pytest.approx(expected.num_trainable_tokens, rel=0.03)
    lengths, true_lengths = (
        np.array([row.num_tokens for row in corpus.rows]) for corpus in (found.corpus, expected)
    )
    assert np.corrcoef(lengths, true_lengths)[0, 1] > 0.95
    assert lengths.max() == true_lengths.max()
    assert not any(row.trainable[0] for row in found.corpus.rows)


def test_copies_stay_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 8)
    path = write_rows(tmp_path / "rows.jsonl", 50)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[3], lines[5]]) + "\n")
    found = estimated(configured(path))
    assert found.corpus.num_duplicate_rows == len(lines) + 2 - len(set(lines))
    rows = found.corpus.rows
    assert np.array_equal(rows[3].input_ids, rows[50].input_ids)


def test_of_too_many_rows_each_stands_for_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 8)
    monkeypatch.setattr(estimates, "MAX_ESTIMATED_ROWS", 100)
    found = estimated(configured(write_rows(tmp_path / "rows.jsonl", 400)))
    assert len(found.corpus.rows) == 100
    assert (found.num_rows, found.rows_each_stands_for) == (400, 4)


def test_rows_that_cannot_be_understood_are_all_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 64)
    monkeypatch.setattr(sampling, "NUM_LARGEST_ROWS", 1)
    path = write_rows(tmp_path / "rows.jsonl", 256)
    lines = path.read_text().splitlines()
    lines[::32] = ['{"prompt": "q", "completion": ""}'] * 8
    path.write_text("\n".join(lines) + "\n")
    found = estimated(configured(path, on_bad_row="skip"))
    assert found.num_bad_rows == 8
    assert found.num_rows == len(found.corpus.rows) == 248


def test_rows_that_the_template_refuses_are_taken_to_be_as_many_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 64)
    monkeypatch.setattr(sampling, "NUM_LARGEST_ROWS", 1)
    path = write_rows(tmp_path / "rows.jsonl", 256)
    lines = path.read_text().splitlines()
    lines[::32] = ['{"prompt": "refused", "completion": "a"}'] * 8
    path.write_text("\n".join(lines) + "\n")
    template = tmp_path / "chat.jinja"
    template.write_text(
        "{% for m in messages %}{% if m.content == 'refused' %}{{ raise_exception('no') }}"
        "{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    found = estimated(configured(path, on_bad_row="skip", chat_template=str(template)))
    assert found.num_bad_rows == pytest.approx(32, abs=2)
    assert found.num_rows == len(found.corpus.rows) == 256 - found.num_bad_rows


def test_rows_of_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 4)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "the quick brown fox"}\n' * 40)
    rows = estimated(configured(path)).corpus.rows
    assert len({row.num_tokens for row in rows}) == 1
    assert len({row.num_trainable_tokens for row in rows}) == 1


def test_the_interval_of_the_totals_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 128)
    config = configured(write_rows(tmp_path / "rows.jsonl", 900))
    found = estimated(config)
    expected = load_corpus(config, config.dataset, tiny_tokenizer())
    num_tokens, num_trainable = found.corpus.num_tokens, found.corpus.num_trainable_tokens
    assert 0 < found.num_tokens_margin < 0.05 * num_tokens
    assert abs(num_tokens - expected.num_tokens) < 2 * found.num_tokens_margin
    assert abs(num_trainable - expected.num_trainable_tokens) < 2 * found.num_trainable_margin
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 2000)
    monkeypatch.setattr(sampling, "MAX_SAMPLED_SIZE", 10_000_000)
    assert estimated(config).num_tokens_margin == 0
