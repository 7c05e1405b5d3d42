"""Where rows come from: a file, a folder of files, or a dataset of the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.data.lines import Row, read_csv, read_json, read_jsonl, read_txt
from trimtab.data.rows import BadRow, SourceRow
from trimtab.errors import ConfigError, DataError

OnProgress = Callable[[str, int, int | None], None]
"""Called with the stage's name, what is done of it in rows, and its total where that is known."""

TEXT_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
TABLE_SUFFIXES = (".parquet", ".arrow")
FORMATS_READ = "jsonl, json, csv, tsv, txt (each also as .gz), parquet or arrow"
SPLIT_WORDS = {"train", "training", "test", "valid", "validation", "val", "dev", "eval"}
SPLIT_SYNONYMS = (("train", "training"), ("valid", "validation", "val", "dev", "eval"))
FILES_BESIDE_ROWS = {"state.json", "dataset_info.json", "dataset_dict.json", "dataset_infos.json"}
HUB_NAME = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<subset>[\w.-]+))?")
ROWS_BETWEEN_REPORTS = 1000


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The rows in the order of the source, the rows that could not be read, the files read."""

    rows: tuple[SourceRow, ...]
    bad_rows: tuple[BadRow, ...]
    files: tuple[str, ...]


def read_dataset(dataset: str, split: str, *, on_progress: OnProgress | None = None) -> ReadResult:
    """All rows of a file, a folder or a hub dataset (`owner/name`, or `owner/name:subset`).

    A path that exists is read as it stands. Of a folder, the files under it are read in the order
    of their names, without those whose name says another split (`test.jsonl` where `split` is
    `train`). Only a name that cannot be a path is looked up on the hub.

    Raises ConfigError where there is nothing of that name, DataError where it holds no rows.
    """
    path = Path(dataset).expanduser()
    if path.is_dir():
        files = _files_of_folder(path, split)
        result = _collect(_rows_of_files(files, split), on_progress, [str(file) for file in files])
    elif path.exists():
        result = _collect(_rows_of_file(path, split), on_progress, [str(path)])
    elif _looks_like_path(dataset):
        raise ConfigError(
            f"no such file or folder: {dataset}.",
            hint="`dataset` is a path, or a hub name such as owner/name.",
        )
    else:
        result = _collect(_rows_of_hub(dataset, split), on_progress, [dataset])
    if not result.rows and not result.bad_rows:
        raise DataError("there are no rows in it.", where=dataset)
    return result


def _collect(found: Iterable[Row], on_progress: OnProgress | None, files: list[str]) -> ReadResult:
    rows: list[SourceRow] = []
    bad_rows: list[BadRow] = []
    for row in found:
        if isinstance(row, BadRow):
            bad_rows.append(row)
        else:
            rows.append(row)
        count = len(rows) + len(bad_rows)
        if on_progress is not None and count % ROWS_BETWEEN_REPORTS == 0:
            on_progress("reading rows", count, None)
    return ReadResult(tuple(rows), tuple(bad_rows), tuple(files))


def _looks_like_path(dataset: str) -> bool:
    if dataset.startswith((".", "/", "~")) or _suffix(Path(dataset)) is not None:
        return True
    return HUB_NAME.fullmatch(dataset) is None


def _suffix(path: Path) -> str | None:
    """The suffix that says how the file is read, None where it says nothing."""
    name = path.name.lower()
    unzipped = name.removesuffix(".gz")
    for suffix in TEXT_SUFFIXES:
        if unzipped.endswith(suffix):
            return suffix
    return next((suffix for suffix in TABLE_SUFFIXES if name.endswith(suffix)), None)


def _files_of_folder(folder: Path, split: str) -> list[Path]:
    if (folder / "dataset_dict.json").exists() and (folder / split).is_dir():
        folder = folder / split
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and _suffix(path) is not None
        and path.name not in FILES_BESIDE_ROWS
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise DataError(f"the folder has no file of rows ({FORMATS_READ}).", where=str(folder))
    wanted = _synonyms(split)
    chosen = [file for file in files if not (said := _splits_said(file, folder)) or said & wanted]
    if not chosen:
        raise DataError(
            f"no file of the folder is of the split {split!r}: {_first_names(files)}.",
            where=str(folder),
            hint="Set `dataset_split`, or name one file.",
        )
    return chosen


def _synonyms(split: str) -> set[str]:
    return next((set(words) for words in SPLIT_SYNONYMS if split in words), {split})


def _splits_said(file: Path, folder: Path) -> set[str]:
    words = re.split(r"[^a-z]+", str(file.relative_to(folder)).lower())
    return SPLIT_WORDS.intersection(words)


def _first_names(files: list[Path]) -> str:
    names = ", ".join(file.name for file in files[:5])
    return names if len(files) <= 5 else f"{names} and {len(files) - 5} more"


def _rows_of_files(files: list[Path], split: str) -> Iterator[Row]:
    for file in files:
        yield from _rows_of_file(file, split)


def _rows_of_file(path: Path, split: str) -> Iterator[Row]:
    match _suffix(path):
        case ".jsonl" | ".ndjson":
            return read_jsonl(path)
        case ".json":
            return read_json(path, split)
        case ".csv":
            return read_csv(path, ",")
        case ".tsv":
            return read_csv(path, "\t")
        case ".txt":
            return read_txt(path)
        case ".parquet":
            return _read_parquet(path)
        case ".arrow":
            return _read_arrow(path)
    raise DataError(
        f"a file of this kind is not read: {path.name}.",
        where=str(path),
        hint=f"Give {FORMATS_READ}.",
    )


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from _rows_of_batches(path, file.iter_batches())
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"not a parquet file: {_first_line(error)}.", where=str(path)) from None


def _read_arrow(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.ipc

    try:
        with pyarrow.OSFile(str(path), "rb") as file:
            is_file_format = file.read(6) == b"ARROW1"
            file.seek(0)
            if is_file_format:
                reader = pyarrow.ipc.open_file(file)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
                yield from _rows_of_batches(path, batches)
            else:
                yield from _rows_of_batches(path, pyarrow.ipc.open_stream(file))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"not an arrow file: {_first_line(error)}.", where=str(path)) from None


def _rows_of_batches(path: Path, batches: Iterable[Any]) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for columns in batch.to_pylist():
            number += 1
            yield SourceRow(str(path), number, columns)


def _rows_of_hub(dataset: str, split: str) -> Iterator[Row]:
    import datasets

    match = HUB_NAME.fullmatch(dataset)
    assert match is not None
    try:
        table = datasets.load_dataset(match["name"], match["subset"], split=split)
    except (ValueError, OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ConfigError(
            f"no file of that name is here, and the hub dataset cannot be loaded: "
            f"{_first_line(error)}",
            where=dataset,
            hint="Name a path, or a hub dataset as owner/name or owner/name:subset.",
        ) from None
    for number, columns in enumerate(table, 1):
        yield SourceRow(dataset, number, columns)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
