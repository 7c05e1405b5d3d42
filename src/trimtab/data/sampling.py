"""Some of a dataset's rows, the size of every row, and all rows that are bad."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimtab.data.bad_rows import checked
from trimtab.data.lines import BYTE_ORDER_MARK, Row, jsonl_row, raw_lines
from trimtab.data.rows import BadRow, SourceRow
from trimtab.data.sources import (
    ROWS_BETWEEN_REPORTS,
    FoundFiles,
    OnProgress,
    ReadResult,
    find_files,
    is_jsonl,
    rows_of_file,
)
from trimtab.errors import DataError
from trimtab.hyperparameters.config import TrainingConfig

MAX_SAMPLED_ROWS = 512
MAX_SAMPLED_SIZE = 200_000
MIN_SAMPLED_ROWS = 32
NUM_LARGEST_ROWS = 8


@dataclass(frozen=True, slots=True)
class RowPositions:
    """int64 [num_rows] each: the index of a row's file among those read, its line, and the byte
    that the line begins at where the file is jsonl that is not compressed (else 0)."""

    files: npt.NDArray[np.int64]
    lines: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]


@dataclass(slots=True)
class _Noted:
    """What is kept of every row: eight bytes of each."""

    sizes: array[int] = field(default_factory=lambda: array("q"))
    contents: array[int] = field(default_factory=lambda: array("q"))
    files: array[int] = field(default_factory=lambda: array("q"))
    lines: array[int] = field(default_factory=lambda: array("q"))
    offsets: array[int] = field(default_factory=lambda: array("q"))
    digest: hashlib.blake2b = field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    def note(self, file: int, line: int, offset: int, content: bytes) -> None:
        self.sizes.append(len(content))
        self.contents.append(hash(content.rstrip(b"\r\n")))
        self.files.append(file)
        self.lines.append(line)
        self.offsets.append(offset)
        self.digest.update(content)

    def positions(self) -> RowPositions:
        return RowPositions(_int64(self.files), _int64(self.lines), _int64(self.offsets))


@dataclass(frozen=True, slots=True)
class SourceSample:
    """Rows at even steps through a dataset and its largest ones, and what is known of all rows.

    read: the sampled rows that are good, and every bad row. places, bad_places: the index among
    all rows of each of `read.rows` and of `read.bad_rows`, rising.
    sizes: int64 [num_rows], bytes of a line of jsonl, else characters of a row.
    contents: int64 [num_rows], equal for rows of equal content.
    positions: where each row stands. digest: the same for the same rows in the same order.
    """

    read: ReadResult
    places: tuple[int, ...]
    bad_places: tuple[int, ...]
    sizes: npt.NDArray[np.int64]
    contents: npt.NDArray[np.int64]
    positions: RowPositions
    digest: str

    @property
    def num_rows(self) -> int:
        return len(self.sizes)


@dataclass(frozen=True, slots=True)
class _Sized:
    """A good row with its index among all, its rank among the good ones, and its size."""

    index: int
    rank: int
    size: int
    row: SourceRow


@dataclass(slots=True)
class _EvenSteps:
    """Every `step`-th row; the step doubles whenever the rows kept grow beyond the limits."""

    step: int = 1
    size: int = 0
    rows: list[_Sized] = field(default_factory=list)

    def offer(self, row: _Sized) -> None:
        if row.rank % self.step:
            return
        self.rows.append(row)
        self.size += row.size
        while self._is_over():
            self.step *= 2
            self.rows = [row for row in self.rows if row.rank % self.step == 0]
            self.size = sum(row.size for row in self.rows)

    def _is_over(self) -> bool:
        number = len(self.rows)
        return number > MAX_SAMPLED_ROWS or (
            number > MIN_SAMPLED_ROWS and self.size > MAX_SAMPLED_SIZE
        )


@dataclass(slots=True)
class _Largest:
    """The largest rows; of these as many as their sizes allow, at least one."""

    heap: list[tuple[int, int, _Sized]] = field(default_factory=list)

    def offer(self, row: _Sized) -> None:
        entry = (row.size, -row.index, row)
        if len(self.heap) < NUM_LARGEST_ROWS:
            heappush(self.heap, entry)
        elif entry > self.heap[0]:
            heappushpop(self.heap, entry)

    def rows(self) -> list[_Sized]:
        kept: list[_Sized] = []
        size = 0
        for row_size, _, row in sorted(self.heap, reverse=True):
            size += row_size
            if kept and size > MAX_SAMPLED_SIZE:
                break
            kept.append(row)
        return kept


def sample_dataset(
    config: TrainingConfig,
    dataset: str,
    *,
    for_evaluation: bool = False,
    on_progress: OnProgress | None = None,
) -> SourceSample:
    """A sample of a file or folder; all rows where they are few and short.

    Every row is read and understood, so the bad ones are all known, but for those that only the
    model's template or tokenizer refuses. Of rows that are not in the sample 40 bytes are kept.

    Raises ConfigError where there is nothing of that name or it is a hub dataset, DataError
    where it holds no rows, both as `detect_format` does.
    """
    files = find_files(dataset, config.dataset_split, for_evaluation=for_evaluation)
    even, largest = _EvenSteps(), _Largest()
    bad: dict[int, BadRow] = {}
    noted = _Noted()
    for index, row in enumerate(checked(_noted_rows(files, noted), config)):
        if on_progress is not None and index % ROWS_BETWEEN_REPORTS == 0:
            on_progress("checking rows", index, None)
        if isinstance(row, BadRow):
            bad[index] = row
            continue
        sized = _Sized(index, index - len(bad), noted.sizes[index], row)
        even.offer(sized)
        largest.offer(sized)
    if not noted.sizes:
        raise DataError("there are no rows in it.", where=dataset)
    chosen = {one.index: one.row for one in (*even.rows, *largest.rows())}
    good = sorted(chosen.items())
    read = ReadResult(
        rows=tuple(row for _, row in good),
        bad_rows=tuple(bad.values()),
        files=tuple(str(path) for path in files.paths),
    )
    return SourceSample(
        read,
        places=tuple(index for index, _ in good),
        bad_places=tuple(bad),
        sizes=_int64(noted.sizes),
        contents=_int64(noted.contents),
        positions=noted.positions(),
        digest=noted.digest.hexdigest(),
    )


def _noted_rows(files: FoundFiles, noted: _Noted) -> Iterator[Row]:
    for number, path in enumerate(files.paths):
        if not is_jsonl(path):
            for row in rows_of_file(path, files.splits):
                noted.note(number, row.line, 0, _text(row).encode(errors="surrogatepass"))
                yield row
            continue
        offset = 0
        for line, raw in raw_lines(path):
            if line == 1:
                offset = _start_of_text(path)
            if raw.strip():
                noted.note(number, line, offset, raw)
                yield jsonl_row(path, line, raw)
            offset += len(raw)


def _start_of_text(path: Path) -> int:
    """Behind a byte-order mark."""
    with path.open("rb") as file:
        return len(BYTE_ORDER_MARK) if file.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK else 0


def _int64(numbers: array[int]) -> npt.NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def _text(row: Row) -> str:
    return str(dict(row.columns)) if isinstance(row, SourceRow) else row.reason
