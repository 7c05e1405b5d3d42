"""Files, folders and hub names; what is missing is said, and never looked up elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from trimtab.data.sources import ReadResult, name_and_subset, read_dataset, with_subset
from trimtab.errors import ConfigError, DataError

ROWS = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    table = pyarrow.Table.from_pylist(rows)
    match path.suffix:
        case ".jsonl" | ".ndjson":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".json":
            path.write_text(json.dumps(rows))
        case ".csv" | ".tsv":
            mark = "," if path.suffix == ".csv" else "\t"
            lines = [mark.join(rows[0]), *(mark.join(row.values()) for row in rows)]
            path.write_text("\n".join(lines) + "\n")
        case ".parquet":
            pyarrow.parquet.write_table(table, path)
        case ".arrow":
            with (
                pyarrow.OSFile(str(path), "wb") as file,
                pyarrow.ipc.new_file(file, table.schema) as writer,
            ):
                writer.write_table(table)
    return path


def columns(result: ReadResult) -> list[dict[str, Any]]:
    return [dict(row.columns) for row in result.rows]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("rows.jsonl", [1, 2]),
        ("rows.ndjson", [1, 2]),
        ("ROWS.JSONL", [1, 2]),
        ("rows.json", [1, 1]),
        ("rows.csv", [2, 3]),
        ("rows.tsv", [2, 3]),
        ("rows.parquet", [1, 2]),
        ("rows.arrow", [1, 2]),
    ],
)
def test_each_kind_of_file(tmp_path: Path, name: str, lines: list[int]) -> None:
    path = write(tmp_path / name.lower()).rename(tmp_path / name)
    result = read_dataset(str(path), "train")
    assert columns(result) == ROWS
    assert [row.where for row in result.rows] == [f"{path}:{line}" for line in lines]
    assert result.bad_rows == ()
    assert result.files == (str(path),)


def test_an_arrow_stream(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    path = tmp_path / "rows.arrow"
    with (
        pyarrow.OSFile(str(path), "wb") as file,
        pyarrow.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
    assert columns(read_dataset(str(path), "train")) == ROWS


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "rows.jsonl")
    monkeypatch.chdir(tmp_path)
    result = read_dataset("./rows.jsonl", "train")
    assert result.rows[1].where == "rows.jsonl:2"
    assert result.files == ("rows.jsonl",)


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", [{"prompt": "3", "completion": ""}])
    write(tmp_path / "a.csv", [{"prompt": "1", "completion": "2"}])
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".hidden.jsonl").write_text("{}")
    result = read_dataset(str(tmp_path), "train")
    assert [row["prompt"] for row in columns(result)] == ["1", "3"]
    assert [Path(file).name for file in result.files] == ["a.csv", "b.jsonl"]


@pytest.mark.parametrize(
    ("split", "expected"), [("train", ["train"]), ("test", ["test"]), ("validation", ["dev"])]
)
def test_files_of_another_split_are_left_out(
    tmp_path: Path, split: str, expected: list[str]
) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00001", "test", "dev"):
        word = name.split("-")[0]
        write(tmp_path / "data" / f"{name}.jsonl", [{"prompt": word, "completion": "x"}])
    result = read_dataset(str(tmp_path), split)
    assert [row["prompt"] for row in columns(result)] == expected


def test_a_split_that_the_folder_does_not_have(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl")
    with pytest.raises(DataError, match=r"no file of the folder is of the split 'train'.*test"):
        read_dataset(str(tmp_path), "train")


def test_a_dataset_saved_to_disk(tmp_path: Path) -> None:
    both = datasets.DatasetDict(
        {
            "train": datasets.Dataset.from_list(ROWS),
            "test": datasets.Dataset.from_list(ROWS[:1]),
        }
    )
    both.save_to_disk(str(tmp_path / "saved"))
    assert columns(read_dataset(str(tmp_path / "saved"), "train")) == ROWS
    assert columns(read_dataset(str(tmp_path / "saved" / "test"), "test")) == ROWS[:1]


def test_bad_rows_stand_beside_the_good(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n[]\n{"a": 2}\n')
    result = read_dataset(str(path), "train")
    assert len(result.rows) == 2
    assert [(row.where, row.reason) for row in result.bad_rows] == [
        (f"{path}:2", "the row is a list, not an object")
    ]


@pytest.mark.parametrize(
    "name",
    ["./missing.jsonl", "missing.jsonl", "missing.csv.gz", "/no/where", "a/b/c", "~/none.txt"],
)
def test_what_looks_like_a_path_is_never_looked_up(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("looked up on the hub")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ConfigError, match="no such file or folder"):
        read_dataset(name, "train")


def test_hub_names_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load(name: str, subset: str | None, *, split: str) -> datasets.Dataset:
        asked.append((name, subset, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    result = read_dataset("owner/name:main", "test")
    assert columns(result) == ROWS
    assert result.rows[1].where == "owner/name:main:2"
    read_dataset("name", "train")
    assert asked == [("owner/name", "main", "test"), ("name", None, "train")]


def test_an_unknown_hub_name_is_one_paragraph() -> None:
    with pytest.raises(ConfigError) as caught:
        read_dataset("owner/surely-not-there", "train")
    assert caught.value.where == "owner/surely-not-there"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.json", "empty.csv", "empty.txt"])
def test_an_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("\n")
    with pytest.raises(DataError, match="there are no rows in it"):
        read_dataset(str(tmp_path / name), "train")


def test_a_header_without_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="there are no rows in it"):
        read_dataset(str(tmp_path / "rows.csv"), "train")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("rows.parquet", "not a parquet file"),
        ("rows.arrow", "not an arrow file"),
        ("rows.xlsx", "a file of this kind is not read"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_bytes(b"something else altogether")
    with pytest.raises(DataError, match=what):
        read_dataset(str(tmp_path / name), "train")


def test_a_folder_without_rows(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(DataError, match="the folder has no file of rows"):
        read_dataset(str(tmp_path), "train")


def test_progress_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("a\n" * 2500)
    told: list[tuple[str, int, int | None]] = []
    read_dataset(str(path), "train", on_progress=lambda *event: told.append(event))
    assert told == [("reading rows", 1000, None), ("reading rows", 2000, None)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["test"], ["test"]),
        (["train"], ["train"]),
        (["train", "test"], ["test"]),
        (["dev", "test", "train"], ["dev"]),
        (["rows", "train"], ["rows", "train"]),
        (["rows", "test", "train"], ["rows", "test"]),
    ],
)
def test_a_folder_for_evaluation(tmp_path: Path, names: list[str], expected: list[str]) -> None:
    for name in names:
        write(tmp_path / f"{name}.jsonl", [{"prompt": name, "completion": "x"}])
    result = read_dataset(str(tmp_path), "train", for_evaluation=True)
    assert [row["prompt"] for row in columns(result)] == expected


def test_a_file_of_any_name_is_read_for_evaluation(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl")
    assert columns(read_dataset(str(path), "train", for_evaluation=True)) == ROWS


def test_a_dataset_saved_to_disk_is_evaluated_on_its_test_split(tmp_path: Path) -> None:
    both = {"train": ROWS, "test": ROWS[:1]}
    tables = {split: datasets.Dataset.from_list(rows) for split, rows in both.items()}
    datasets.DatasetDict(tables).save_to_disk(str(tmp_path))
    assert columns(read_dataset(str(tmp_path), "train", for_evaluation=True)) == ROWS[:1]


@pytest.mark.parametrize(
    ("splits", "taken"),
    [
        (("train", "test", "validation"), "validation"),
        (("train", "test"), "test"),
        (("train", "dev", "test"), "dev"),
        (("train",), "train"),
    ],
)
def test_a_hub_dataset_for_evaluation(
    splits: tuple[str, ...], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = datasets.DatasetDict(
        {split: datasets.Dataset.from_list([{"text": split}]) for split in splits}
    )
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, split: tables if split is None else tables[split]
    )
    result = read_dataset("owner/name", "train", for_evaluation=True)
    assert columns(result) == [{"text": taken}]
    assert result.files == (f"owner/name ({taken})",)
    assert result.rows[0].file == result.files[0]


@pytest.mark.parametrize("dataset", ["rows.jsonl", "./some/rows", "some/rows:de", "a b"])
def test_a_path_has_no_subset(dataset: str) -> None:
    assert with_subset(dataset, "en") is None


def test_a_subset_is_put_to_a_hub_name_and_taken_off_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert with_subset("some/rows", "de") == "some/rows:de"
    assert with_subset("some/rows", "not a name") is None
    assert name_and_subset("some/rows:de") == ("some/rows", "de")
    assert name_and_subset("some/rows") == ("some/rows", None)
    Path("rows:de").touch()
    assert name_and_subset("rows:de") == ("rows:de", None)


def test_a_mistyped_file_of_a_folder_here_is_never_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("looked up on the hub")

    (tmp_path / "rows").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ConfigError, match="no such file or folder: rows/gsm8k"):
        read_dataset("rows/gsm8k", "train")
