"""Some of a dataset's rows, parsed, and the size of every row, which may stay unparsed.

Rows of jsonl are counted as lines; of other kinds of file every row is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimtab.data.lines import Row, jsonl_row, raw_lines
from trimtab.data.rows import BadRow, SourceRow
from trimtab.data.sources import ReadResult, find_files, is_jsonl, rows_of_file
from trimtab.errors import DataError

MAX_SAMPLED_ROWS = 512
MAX_SAMPLED_SIZE = 200_000
MIN_SAMPLED_ROWS = 32
NUM_LARGEST_ROWS = 8


@dataclass(frozen=True, slots=True)
class SourceSample:
    """Rows at even steps through a dataset and its largest ones, and what is known of all rows.

    read: the sampled rows. places: the index among all rows of each of `read.rows`, rising.
    sizes: int64 [num_rows], bytes of a line or characters of a parsed row.
    contents: int64 [num_rows], equal for rows of equal content.
    """

    read: ReadResult
    places: tuple[int, ...]
    sizes: npt.NDArray[np.int64]
    contents: npt.NDArray[np.int64]

    @property
    def num_rows(self) -> int:
        return len(self.sizes)


@dataclass(frozen=True, slots=True)
class _Unparsed:
    """A row with its index among all; `content` is its raw line, or the row itself if parsed."""

    index: int
    size: int
    file: Path
    line: int
    content: bytes | Row

    def parsed(self) -> Row:
        if isinstance(self.content, bytes):
            return jsonl_row(self.file, self.line, self.content)
        return self.content


@dataclass(slots=True)
class _EvenSteps:
    """Every `step`-th row; the step doubles whenever the rows kept grow beyond the limits."""

    step: int = 1
    size: int = 0
    rows: list[_Unparsed] = field(default_factory=list)

    def offer(self, row: _Unparsed) -> None:
        if row.index % self.step:
            return
        self.rows.append(row)
        self.size += row.size
        while self._is_over():
            self.step *= 2
            self.rows = [row for row in self.rows if row.index % self.step == 0]
            self.size = sum(row.size for row in self.rows)

    def _is_over(self) -> bool:
        number = len(self.rows)
        return number > MAX_SAMPLED_ROWS or (
            number > MIN_SAMPLED_ROWS and self.size > MAX_SAMPLED_SIZE
        )


@dataclass(slots=True)
class _Largest:
    """The largest rows; of these as many as their sizes allow, at least one."""

    heap: list[tuple[int, int, _Unparsed]] = field(default_factory=list)

    def offer(self, row: _Unparsed) -> None:
        entry = (row.size, -row.index, row)
        if len(self.heap) < NUM_LARGEST_ROWS:
            heappush(self.heap, entry)
        elif entry > self.heap[0]:
            heappushpop(self.heap, entry)

    def rows(self) -> list[_Unparsed]:
        kept: list[_Unparsed] = []
        size = 0
        for row_size, _, row in sorted(self.heap, reverse=True):
            size += row_size
            if kept and size > MAX_SAMPLED_SIZE:
                break
            kept.append(row)
        return kept


def sample_dataset(dataset: str, split: str, *, for_evaluation: bool = False) -> SourceSample:
    """A sample of a file or folder; all rows where they are few and short.

    Raises ConfigError where there is nothing of that name or it is a hub dataset, DataError
    where it holds no rows.
    """
    files = find_files(dataset, split, for_evaluation=for_evaluation)
    even, largest = _EvenSteps(), _Largest()
    sizes: list[int] = []
    contents: list[int] = []
    for row in _unparsed_rows(files.paths, files.splits):
        sizes.append(row.size)
        contents.append(hash(row.content if isinstance(row.content, bytes) else _text(row.content)))
        even.offer(row)
        largest.offer(row)
    if not sizes:
        raise DataError("there are no rows in it.", where=dataset)
    chosen = {row.index: row for row in (*even.rows, *largest.rows())}
    parsed = [(index, chosen[index].parsed()) for index in sorted(chosen)]
    good = [(index, row) for index, row in parsed if isinstance(row, SourceRow)]
    read = ReadResult(
        rows=tuple(row for _, row in good),
        bad_rows=tuple(row for _, row in parsed if isinstance(row, BadRow)),
        files=tuple(str(path) for path in files.paths),
    )
    places = tuple(index for index, _ in good)
    return SourceSample(
        read, places, np.array(sizes, dtype=np.int64), np.array(contents, dtype=np.int64)
    )


def _unparsed_rows(paths: tuple[Path, ...], splits: tuple[str, ...]) -> Iterator[_Unparsed]:
    index = 0
    for path in paths:
        if is_jsonl(path):
            for line, raw in raw_lines(path):
                if raw.strip():
                    yield _Unparsed(index, len(raw), path, line, raw)
                    index += 1
        else:
            for row in rows_of_file(path, splits):
                yield _Unparsed(index, len(_text(row)), path, row.line, row)
                index += 1


def _text(row: Row) -> str:
    return str(dict(row.columns)) if isinstance(row, SourceRow) else row.reason
