"""Some of a dataset's rows, the size of every row, and all rows that are bad."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimtab.data.bad_rows import checked
from trimtab.data.lines import Row, jsonl_row, raw_lines
from trimtab.data.rows import BadRow, SourceRow
from trimtab.data.sources import ReadResult, find_files, is_jsonl, rows_of_file
from trimtab.errors import DataError
from trimtab.hyperparameters.config import TrainingConfig

MAX_SAMPLED_ROWS = 512
MAX_SAMPLED_SIZE = 200_000
MIN_SAMPLED_ROWS = 32
NUM_LARGEST_ROWS = 8


@dataclass(frozen=True, slots=True)
class SourceSample:
    """Rows at even steps through a dataset and its largest ones, and what is known of all rows.

    read: the sampled rows that are good, and every bad row. places, bad_places: the index among
    all rows of each of `read.rows` and of `read.bad_rows`, rising.
    sizes: int64 [num_rows], bytes of a line of jsonl, else characters of a row.
    contents: int64 [num_rows], equal for rows of equal content.
    """

    read: ReadResult
    places: tuple[int, ...]
    bad_places: tuple[int, ...]
    sizes: npt.NDArray[np.int64]
    contents: npt.NDArray[np.int64]

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
    config: TrainingConfig, dataset: str, *, for_evaluation: bool = False
) -> SourceSample:
    """A sample of a file or folder; all rows where they are few and short.

    Every row is read and understood, so the bad ones are all known, but for those that only the
    model's template or tokenizer refuses.

    Raises ConfigError where there is nothing of that name or it is a hub dataset, DataError
    where it holds no rows, both as `detect_format` does.
    """
    files = find_files(dataset, config.dataset_split, for_evaluation=for_evaluation)
    even, largest = _EvenSteps(), _Largest()
    bad: dict[int, BadRow] = {}
    sizes: list[int] = []
    contents: list[int] = []

    def noted() -> Iterator[Row]:
        for row, size, content in _sized_rows(files.paths, files.splits):
            sizes.append(size)
            contents.append(content)
            yield row

    for index, row in enumerate(checked(noted(), config)):
        if isinstance(row, BadRow):
            bad[index] = row
            continue
        sized = _Sized(index, index - len(bad), sizes[index], row)
        even.offer(sized)
        largest.offer(sized)
    if not sizes:
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
        sizes=np.array(sizes, dtype=np.int64),
        contents=np.array(contents, dtype=np.int64),
    )


def _sized_rows(paths: tuple[Path, ...], splits: tuple[str, ...]) -> Iterator[tuple[Row, int, int]]:
    """Each row with its size, and a number that is the same for rows of equal content."""
    for path in paths:
        if is_jsonl(path):
            for line, raw in raw_lines(path):
                if raw.strip():
                    yield jsonl_row(path, line, raw), len(raw), hash(raw)
        else:
            for row in rows_of_file(path, splits):
                text = _text(row)
                yield row, len(text), hash(text)


def _text(row: Row) -> str:
    return str(dict(row.columns)) if isinstance(row, SourceRow) else row.reason
