"""Where rows come from: a file, a folder of files, or a dataset of the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
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
EVALUATION_SPLITS = ("validation", "test")
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


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """The files of a dataset in the order they are read, and the splits that are wanted of it."""

    paths: tuple[Path, ...]
    splits: tuple[str, ...]


def read_dataset(
    dataset: str,
    split: str,
    *,
    for_evaluation: bool = False,
    on_progress: OnProgress | None = None,
) -> ReadResult:
    """All rows of a file, a folder or a hub dataset (`owner/name`, or `owner/name:subset`).

    A path that exists is read as it stands. Of a folder, the files under it are read in the order
    of their names, without those whose name says another split (`test.jsonl` where `split` is
    `train`). Only a name that cannot be a path is looked up on the hub.

    `for_evaluation` takes the validation split, where there is none the test split, and `split`
    only where there is neither; a folder that names none of them is read whole. The result's
    files say which split of a hub dataset it was.

    Raises ConfigError where there is nothing of that name, DataError where it holds no rows.
    """
    found = _files_here(dataset, split, for_evaluation=for_evaluation)
    if found is not None:
        rows = _rows_of_files(found.paths, found.splits)
        result = _collect(rows, on_progress, [str(path) for path in found.paths])
    else:
        if for_evaluation:
            name, table = _evaluation_table_of_hub(dataset, split)
        else:
            name, table = dataset, _table_of_hub(dataset, split)
        result = _collect(_rows_of_table(name, table), on_progress, [name])
    if not result.rows and not result.bad_rows:
        raise DataError("there are no rows in it.", where=dataset)
    return result


def find_files(dataset: str, split: str, *, for_evaluation: bool = False) -> FoundFiles:
    """The files that `read_dataset` would read.

    Raises ConfigError where there is nothing of that name or it is a hub dataset, DataError for a
    folder without a file of rows.
    """
    found = _files_here(dataset, split, for_evaluation=for_evaluation)
    if found is None:
        raise ConfigError(
            f"{dataset} is no file or folder here, and a quick plan asks no hub.",
            hint="Plan without --quick, or name a file.",
        )
    return found


def _files_here(dataset: str, split: str, *, for_evaluation: bool) -> FoundFiles | None:
    """None where `dataset` can only be a name of the hub."""
    path = Path(dataset).expanduser()
    splits = (*EVALUATION_SPLITS, split) if for_evaluation else (split,)
    if path.is_dir():
        return FoundFiles(tuple(_files_of_folder(path, splits, or_all=for_evaluation)), splits)
    if path.is_char_device() or path.is_block_device() or path.is_socket():
        raise DataError("it is a device, not a file of rows.", where=dataset)
    if path.exists():
        return FoundFiles((path,), splits)
    if _looks_like_path(dataset, path):
        name = "eval_dataset" if for_evaluation else "dataset"
        raise ConfigError(
            f"{name}: no such file or folder: {dataset}.",
            hint=f"`{name}` is a path, or a hub name such as owner/name.",
        )
    return None


def with_subset(dataset: str, subset: str) -> str | None:
    """`owner/name:subset`; None where `dataset` is no name of the hub, or has a subset already."""
    joined = f"{dataset}:{subset}"
    if ":" in dataset or HUB_NAME.fullmatch(joined) is None:
        return None
    path = Path(dataset).expanduser()
    return None if path.exists() or _looks_like_path(dataset, path) else joined


def name_and_subset(dataset: str) -> tuple[str, str | None]:
    """The parts of `owner/name:subset`; the whole where it is a path or names no subset."""
    match = HUB_NAME.fullmatch(dataset)
    path = Path(dataset).expanduser()
    if match is None or path.exists() or _looks_like_path(dataset, path):
        return dataset, None
    return match["name"], match["subset"]


def can_have_splits(dataset: str) -> bool:
    """Whether it may hold rows of several splits: JSON may, and no other single file."""
    path = Path(dataset).expanduser()
    return not path.is_file() or _suffix(path) == ".json"


def is_jsonl(path: Path) -> bool:
    return _suffix(path) in {".jsonl", ".ndjson"}


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


def _looks_like_path(dataset: str, path: Path) -> bool:
    if dataset.startswith((".", "/", "~")) or _suffix(path) is not None:
        return True
    if len(path.parts) > 1 and path.parent.is_dir():
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


def _files_of_folder(folder: Path, splits: tuple[str, ...], *, or_all: bool) -> list[Path]:
    """The files of the first of `splits` that a name says, and those that say none."""
    if (folder / "dataset_dict.json").exists():
        folder = next((folder / split for split in splits if (folder / split).is_dir()), folder)
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
    said = {file: _splits_said(file, folder) for file in files}
    all_said = set().union(*said.values())
    wanted = next((words for words in map(split_synonyms, splits) if words & all_said), set())
    chosen = [file for file in files if not said[file] or said[file] & wanted]
    if not chosen and or_all:
        return files
    if not chosen:
        raise DataError(
            f"no file of the folder is of the split {splits[0]!r}: {_first_names(files)}.",
            where=str(folder),
            hint="Set `dataset_split`, or name one file.",
        )
    return chosen


def split_synonyms(split: str) -> set[str]:
    """The names that datasets give the split."""
    return next((set(words) for words in SPLIT_SYNONYMS if split in words), {split})


def _splits_said(file: Path, folder: Path) -> set[str]:
    words = re.split(r"[^a-z]+", str(file.relative_to(folder)).lower())
    return SPLIT_WORDS.intersection(words)


def _first_names(files: list[Path]) -> str:
    names = ", ".join(file.name for file in files[:5])
    return names if len(files) <= 5 else f"{names} and {len(files) - 5} more"


def _rows_of_files(files: Sequence[Path], splits: tuple[str, ...]) -> Iterator[Row]:
    for file in files:
        yield from rows_of_file(file, splits)


def rows_of_file(path: Path, splits: tuple[str, ...]) -> Iterator[Row]:
    """Raises DataError for a kind of file that is not read."""
    match _suffix(path):
        case ".jsonl" | ".ndjson":
            return read_jsonl(path)
        case ".json":
            return read_json(path, *splits)
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


def _evaluation_table_of_hub(dataset: str, split: str) -> tuple[str, Iterable[dict[str, Any]]]:
    """The first split of those to evaluate on, else `split`; and the dataset's name with it."""
    splits = _table_of_hub(dataset, None)
    for wanted in EVALUATION_SPLITS:
        found = next((name for name in splits if name in split_synonyms(wanted)), None)
        if found is not None:
            return f"{dataset} ({found})", splits[found]
    return f"{dataset} ({split})", _table_of_hub(dataset, split)


def _table_of_hub(dataset: str, split: str | None) -> Any:
    """A `datasets.Dataset`, or without `split` a `datasets.DatasetDict` of all."""
    import datasets

    match = HUB_NAME.fullmatch(dataset)
    assert match is not None
    try:
        return datasets.load_dataset(match["name"], match["subset"], split=split)
    except (ValueError, OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise ConfigError(
            f"no file of that name is here, and the hub dataset cannot be loaded: "
            f"{_first_line(error)}",
            where=dataset,
            hint="Name a path, or a hub dataset as owner/name or owner/name:subset.",
        ) from None


def _rows_of_table(name: str, table: Iterable[dict[str, Any]]) -> Iterator[Row]:
    for number, columns in enumerate(table, 1):
        yield SourceRow(name, number, columns)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
