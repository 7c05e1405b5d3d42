"""Samples stand at even steps, hold the largest rows, and count every row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from trimtab.data import sampling
from trimtab.data.sampling import SourceSample, sample_dataset
from trimtab.data.sources import read_dataset
from trimtab.errors import ConfigError, DataError
from trimtab.hyperparameters.config import TrainingConfig


def sampled(dataset: Path | str) -> SourceSample:
    config = TrainingConfig(model="unused", dataset=str(dataset))
    return sample_dataset(config, str(dataset))


def write_lines(path: Path, lengths: list[int]) -> Path:
    lines = [json.dumps({"text": "x" * length, "n": n}) for n, length in enumerate(lengths)]
    content = "\n".join(lines) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.ndjson"])
def test_a_small_file_is_taken_whole(tmp_path: Path, name: str) -> None:
    path = write_lines(tmp_path / name, [3, 9, 4])
    sample = sampled(path)
    assert sample.read == read_dataset(str(path), "train")
    assert sample.places == (0, 1, 2)
    assert sample.num_rows == 3
    assert sample.sizes.argmax() == 1


@pytest.mark.parametrize("name", ["rows.csv", "rows.json", "rows.txt"])
def test_other_kinds_of_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('[{"text": "a"}, {"text": "bb"}]' if name == "rows.json" else "text\na\nbb\n")
    sample = sampled(path)
    assert sample.read == read_dataset(str(path), "train")
    assert sample.num_rows == len(sample.places) == len(sample.read.rows)


def test_a_long_file_is_sampled_at_even_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 16)
    monkeypatch.setattr(sampling, "NUM_LARGEST_ROWS", 2)
    lengths = [5] * 100
    lengths[33], lengths[77] = 50, 60
    sample = sampled(write_lines(tmp_path / "rows.jsonl", lengths))
    assert sample.num_rows == 100
    assert sample.places == (*range(0, 33, 8), 33, *range(40, 73, 8), 77, 80, 88, 96)
    assert [row.columns["n"] for row in sample.read.rows] == list(sample.places)
    assert [row.line for row in sample.read.rows] == [place + 1 for place in sample.places]


def test_long_rows_are_sampled_more_thinly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_SAMPLED_SIZE", 1000)
    monkeypatch.setattr(sampling, "MIN_SAMPLED_ROWS", 4)
    sample = sampled(write_lines(tmp_path / "rows.jsonl", [80] * 200))
    assert 4 <= len(sample.places) <= 4 + sampling.NUM_LARGEST_ROWS + 1000 // 80


def test_equal_rows_have_equal_contents(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n{"text": "a"}\n')
    contents = sampled(path).contents
    assert contents[0] == contents[2] != contents[1]


def test_bad_rows_keep_their_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": \n{"text": "b"}\n')
    sample = sampled(path)
    assert [row.where for row in sample.read.bad_rows] == [f"{path}:3"]
    assert sample.places == (0, 2)


def test_every_bad_row_is_known_however_few_are_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 16)
    monkeypatch.setattr(sampling, "NUM_LARGEST_ROWS", 2)
    path = write_lines(tmp_path / "rows.jsonl", [5] * 3000)
    lines = path.read_text().splitlines()
    bad_lines = [1, 2, 999, 1500, 3000]
    for number in bad_lines:
        lines[number - 1] = '{"text": " "}' if number % 2 else "{"
    path.write_text("\n".join(lines) + "\n")
    sample = sampled(path)
    assert [row.line for row in sample.read.bad_rows] == bad_lines
    assert sample.bad_places == tuple(line - 1 for line in bad_lines)
    assert not set(sample.places) & set(sample.bad_places)
    assert sample.num_rows == 3000


def test_good_rows_are_sampled_wherever_the_bad_ones_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MAX_SAMPLED_ROWS", 4)
    monkeypatch.setattr(sampling, "NUM_LARGEST_ROWS", 1)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": ""}\n{"text": "fine"}\n' * 64)
    sample = sampled(path)
    assert len(sample.read.bad_rows) == 64
    assert len(sample.places) >= 3


def test_a_folder_is_one_dataset(tmp_path: Path) -> None:
    write_lines(tmp_path / "b.jsonl", [1])
    write_lines(tmp_path / "a.jsonl", [1, 2])
    sample = sampled(tmp_path)
    assert sample.read == read_dataset(str(tmp_path), "train")
    assert sample.places == (0, 1, 2)


def test_nothing_to_sample(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(DataError, match="there are no rows in it"):
        sampled(tmp_path / "rows.jsonl")
    with pytest.raises(ConfigError, match="no such file or folder"):
        sampled(tmp_path / "none.jsonl")


def test_the_hub_is_not_asked() -> None:
    with pytest.raises(ConfigError, match="Plan without --quick"):
        sampled("owner/name")
