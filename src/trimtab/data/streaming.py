"""Rows of long jsonl files: where each stands is kept, and it is read and tokenised when needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from trimtab.data.corpus import Corpus, TokenisingWay
from trimtab.data.lines import is_zipped, jsonl_row
from trimtab.data.rows import BadRow, SourceRow, TokenRow
from trimtab.data.sampling import SourceSample
from trimtab.data.sources import find_files, is_jsonl
from trimtab.data.split import drawn_places
from trimtab.data.truncation import cut_at_end
from trimtab.errors import ConfigError, DataError
from trimtab.hyperparameters.config import TrainingConfig

MIN_STREAMED_ROWS = 100_000
"""Files of fewer lines are tokenised whole: 100,000 rows of 200 tokens take some 100 MB."""
ROWS_AT_ONCE = 2000
FIRST_ROWS_AT_ONCE = 4
"""Of those that are looked through for a few; each time twice as many are made."""
BLOCK_BYTES = 1 << 20

Item_co = TypeVar("Item_co", covariant=True)


def is_streamed(config: TrainingConfig) -> bool:
    """Whether the training dataset is plain jsonl of at least 100,000 lines, taken in order.

    Rows that are dropped for their length or split are tokenised beforehand: how many there are
    is not known before.
    """
    if config.truncation_mode not in {"keep_start", "error"}:
        return False
    try:
        paths = find_files(config.dataset, config.dataset_split).paths
    except ConfigError:
        return False
    if not all(is_jsonl(path) and not is_zipped(path) and path.is_file() for path in paths):
        return False
    try:
        return _has_lines(paths, MIN_STREAMED_ROWS)
    except OSError:
        # It is told where the rows are read.
        return False


def _has_lines(paths: Sequence[Path], wanted: int) -> bool:
    number = 0
    for path in paths:
        with path.open("rb") as file:
            while number < wanted and (block := file.read(BLOCK_BYTES)):
                number += block.count(b"\n")
    return number >= wanted


@dataclass(frozen=True, slots=True)
class Lazily(Sequence[Item_co], Generic[Item_co]):
    """A sequence whose items are made when they are asked for."""

    length: int
    make: Callable[[int], Item_co]

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Item_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item_co]: ...
    def __getitem__(self, index: int | slice) -> Item_co | Sequence[Item_co]:
        if isinstance(index, slice):
            return tuple(self.make(each) for each in range(*index.indices(self.length)))
        return self.make(range(self.length)[index])


class RowIndex:
    """The good rows of files that were checked, by their places.

    Raises DataError at a row that is not what it was when it was checked.
    """

    def __init__(self, sample: SourceSample) -> None:
        good = np.setdiff1d(np.arange(sample.num_rows), sample.bad_places, assume_unique=True)
        self.contents = sample.contents[good]
        """int64 [N], equal for rows of equal content."""
        self._files = [Path(file) for file in sample.read.files]
        self._file_numbers = sample.positions.files[good].astype(np.int32)
        self._lines = sample.positions.lines[good]
        self._offsets = sample.positions.offsets[good]
        self._sizes = sample.sizes[good].astype(np.int32)

    def __len__(self) -> int:
        return len(self.contents)

    def where(self, index: int) -> str:
        return f"{self._files[self._file_numbers[index]]}:{self._lines[index]}"

    def row(self, index: int) -> SourceRow:
        return self.rows([index])[0]

    def rows(self, indices: Sequence[int]) -> list[SourceRow]:
        """The rows, in this order; files are read in theirs."""
        found: dict[int, SourceRow] = {}
        for number in sorted({int(self._file_numbers[index]) for index in indices}):
            path = self._files[number]
            of_file = sorted(index for index in indices if self._file_numbers[index] == number)
            try:
                with path.open("rb") as file:
                    for index in of_file:
                        file.seek(int(self._offsets[index]))
                        raw = file.read(int(self._sizes[index]))
                        found[index] = self._checked(path, index, raw)
            except OSError as error:
                told = f"the file cannot be read: {error.strerror}."
                raise DataError(told, where=str(path)) from None
        return [found[index] for index in indices]

    def _checked(self, path: Path, index: int, raw: bytes) -> SourceRow:
        line = int(self._lines[index])
        row = jsonl_row(path, line, raw)
        if isinstance(row, BadRow) or hash(raw.rstrip(b"\r\n")) != self.contents[index]:
            raise DataError(
                "the row is not what it was when the file was checked.",
                where=f"{path}:{line}",
                hint="Put the file back, and go on with trimtab resume.",
            )
        return row


class StreamedRows(Sequence[TokenRow]):
    """Rows by their indices, tokenised and cut to `max_length` each time they are asked for.

    Many at once, by `made` or by iterating, take a hundredth of the time of one by one.
    Raises DataError for a row that has no token to train on, or that is too long where
    `refuses_long`.
    """

    def __init__(
        self,
        index: RowIndex,
        way: TokenisingWay,
        chosen: npt.NDArray[np.int64],
        *,
        max_length: int | None = None,
        refuses_long: bool = False,
    ) -> None:
        self._index = index
        self._way = way
        self._chosen = chosen
        self._max_length = max_length
        self._refuses_long = refuses_long

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[TokenRow]:
        for start in range(0, len(self), ROWS_AT_ONCE):
            yield from self[start : start + ROWS_AT_ONCE]

    @overload
    def __getitem__(self, index: int) -> TokenRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TokenRow]: ...
    def __getitem__(self, index: int | slice) -> TokenRow | Sequence[TokenRow]:
        places = range(len(self))[index]
        rows = [_good(row) for row in self.made([places] if isinstance(places, int) else places)]
        return rows[0] if isinstance(places, int) else rows

    def made(self, places: Sequence[int]) -> list[TokenRow | BadRow]:
        """The rows at these places of the sequence, or why they are passed over.

        Those that are cut before their first target are; others that cannot be trained on only
        where `on_bad_row` is `skip`, else DataError is raised for them.
        """
        row_ids = self._chosen[list(places)].tolist()
        sources = self._index.rows(row_ids)
        made: list[TokenRow | BadRow] = []
        for row_id, source, tokens in zip(
            row_ids, sources, self._way.tokens_of(sources), strict=True
        ):
            if not isinstance(tokens, BadRow):
                row = TokenRow(row_id, tokens[1].input_ids, tokens[1].trainable)
                made.append(self._cut(row, source))
            elif self._way.config.on_bad_row == "stop":
                _good(tokens)
            else:
                made.append(tokens)
        return made

    def _cut(self, row: TokenRow, source: SourceRow) -> TokenRow | BadRow:
        if self._max_length is None or row.num_tokens <= self._max_length:
            return row
        if self._refuses_long:
            raise DataError(
                f"the row has {row.num_tokens:,} tokens, over max_length {self._max_length}.",
                where=source.where,
                hint="Raise `max_length`, or set `truncation_mode` to keep_start.",
            )
        cut = cut_at_end(row, self._max_length)
        if cut.trainable.any():
            return cut
        reason = f"no token to train on within max_length {self._max_length}"
        return BadRow(source.file, source.line, reason)

    def chosen(
        self, places: npt.NDArray[np.int64], max_length: int, *, refuses_long: bool
    ) -> StreamedRows:
        """Those at these places, cut to `max_length`."""
        return StreamedRows(
            self._index,
            self._way,
            self._chosen[places],
            max_length=max_length,
            refuses_long=refuses_long,
        )


def good_rows(rows: Sequence[TokenRow], start: int = 0) -> Iterator[TokenRow]:
    """The rows from this place on, without those that training passes over.

    Raises DataError as `StreamedRows.made` does.
    """
    at_once = FIRST_ROWS_AT_ONCE
    while start < len(rows):
        stop = min(start + at_once, len(rows))
        if isinstance(rows, StreamedRows):
            made = rows.made(range(start, stop))
            yield from (row for row in made if isinstance(row, TokenRow))
        else:
            yield from rows[start:stop]
        start, at_once = stop, min(2 * at_once, ROWS_AT_ONCE)


def _good(row: TokenRow | BadRow) -> TokenRow:
    if isinstance(row, BadRow):
        raise DataError(
            f"the row cannot be trained on: {row.reason}.",
            where=row.where,
            hint="Mend it, or set `on_bad_row: skip` to pass over such rows.",
        )
    return row


@dataclass(frozen=True, slots=True)
class StreamedSplit:
    """`train` are places of the corpus, int64; so are `eval`, rising."""

    train: npt.NDArray[np.int64]
    eval: npt.NDArray[np.int64]
    num_duplicates_removed: int


def split_places(
    index: RowIndex, num_eval_rows: int, data_seed: int, eval_contents: npt.NDArray[np.int64]
) -> StreamedSplit:
    """What `split.hold_out` holds out; copies are told by a row's own text.

    `eval_contents` are those of a dataset of its own to evaluate on, empty where there is none.
    Raises DataError as `hold_out` does.
    """
    held_out = drawn_places(len(index), num_eval_rows, data_seed) if num_eval_rows else []
    places = np.array(sorted(held_out), dtype=np.int64)
    others = np.setdiff1d(np.arange(len(index)), places, assume_unique=True)
    contents = np.concatenate([index.contents[places], eval_contents])
    train = others[~np.isin(index.contents[others], contents)]
    if not len(train):
        raise DataError(
            f"each of the {len(others):,} training rows is a copy of a held-out row.",
            hint="Set `eval_dataset` to other rows or to `none`.",
        )
    return StreamedSplit(train, places, len(others) - len(train))


def streamed_corpus(index: RowIndex, sampled: Corpus, num_duplicate_rows: int) -> Corpus:
    """All good rows of the files; `sampled` is the corpus of a sample of them."""
    way = sampled.way
    return replace(
        sampled,
        rows=StreamedRows(index, way, np.arange(len(index))),
        conversations=Lazily(len(index), lambda place: way.conversation_of(index.row(place))),
        sources=Lazily(len(index), index.where),
        num_duplicate_rows=num_duplicate_rows,
    )
