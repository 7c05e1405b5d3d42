"""What is wrong with which row: the pass over all rows that needs no model, and the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

from trimtab.data.conversations import to_conversation
from trimtab.data.formats import NUM_ROWS_LOOKED_AT, Detection, detect_format
from trimtab.data.lines import Row
from trimtab.data.rows import BadRow, RowError, SourceRow
from trimtab.data.sources import ReadResult
from trimtab.errors import DataError
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.hyperparameters.declaration import AUTO

NUM_BAD_ROWS_SHOWN = 20
NUM_REASONS_SHOWN = 8

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class BadRowTable:
    """A dataset's bad rows in its order; `num_rows` counts the good ones too."""

    dataset: str
    rows: tuple[BadRow, ...]
    num_rows: int


class BadRows(DataError):
    """Rows that cannot be trained on: a table for each dataset that has some."""

    def __init__(self, tables: Sequence[BadRowTable]) -> None:
        self.tables = tuple(tables)
        first, *others = (_table_text(table) for table in tables)
        following = [
            f"{table.dataset}: {text}" for table, text in zip(tables[1:], others, strict=True)
        ]
        super().__init__(
            "\n".join([first, *following]) + "\n", where=tables[0].dataset, hint=_hint(tables)
        )


def all_loaded(loads: Sequence[Callable[[], Loaded]]) -> list[Loaded]:
    """What each gives; where some raise BadRows, one BadRows with all their tables."""
    loaded: list[Loaded] = []
    tables: list[BadRowTable] = []
    for load in loads:
        try:
            loaded.append(load())
        except BadRows as refused:
            tables += refused.tables
    if tables:
        raise BadRows(tables)
    return loaded


def checked(rows: Iterable[Row], config: TrainingConfig) -> Iterator[Row]:
    """The rows in their order; those that no model could be trained on as bad rows.

    The format is that of the first 1,000 rows, as for the whole dataset. Raises ConfigError and
    DataError as `detect_format` does.
    """
    coming = iter(rows)
    first = list(islice(coming, NUM_ROWS_LOOKED_AT))
    while first and not any(isinstance(row, SourceRow) for row in first):
        yield from first
        first = list(islice(coming, NUM_ROWS_LOOKED_AT))
    if not first:
        return
    detection = detection_of([row for row in first if isinstance(row, SourceRow)], config)
    for row in chain(first, coming):
        yield row if isinstance(row, BadRow) else _checked(row, detection, config)


def _checked(row: SourceRow, detection: Detection, config: TrainingConfig) -> Row:
    try:
        to_conversation(
            row,
            detection,
            completion_only_loss=config.completion_only_loss,
            assistant_only_loss=config.assistant_only_loss,
            has_template=True,
        )
    except RowError as error:
        return BadRow(row.file, row.line, error.reason)
    return row


def refuse_bad_rows(reads: Sequence[tuple[str, ReadResult, int]], config: TrainingConfig) -> None:
    """Raises BadRows as `load_corpus` does, for what is wrong whatever the model is.

    Each is a dataset, what was read of it, and how many rows it has.
    """
    tables = []
    for dataset, read, num_rows in reads:
        found = [row for row in checked(read.rows, config) if isinstance(row, BadRow)]
        bad_rows = in_source_order([*read.bad_rows, *found], read)
        if bad_rows and (config.on_bad_row == "stop" or len(bad_rows) == num_rows):
            tables.append(BadRowTable(dataset, bad_rows, num_rows))
    if tables:
        raise BadRows(tables)


def in_source_order(bad_rows: Sequence[BadRow], read: ReadResult) -> tuple[BadRow, ...]:
    order = {file: index for index, file in enumerate(read.files)}
    return tuple(sorted(bad_rows, key=lambda row: (order[row.file], row.line)))


def detection_of(rows: Sequence[SourceRow], config: TrainingConfig) -> Detection:
    """`detect_format` as the configuration asks."""
    return detect_format(
        rows,
        config.dataset_columns,
        config.dataset_text_field,
        None if config.dataset_format == AUTO else config.dataset_format,
    )


def _table_text(table: BadRowTable) -> str:
    lines = [f"{len(table.rows):,} of {table.num_rows:,} rows cannot be trained on:"]
    lines += [f"  {row.where}  {row.reason}" for row in table.rows[:NUM_BAD_ROWS_SHOWN]]
    if len(table.rows) > NUM_BAD_ROWS_SHOWN:
        lines.append(f"  … and {len(table.rows) - NUM_BAD_ROWS_SHOWN:,} more. By reason:")
        reasons = Counter(row.reason for row in table.rows).most_common()
        shown = reasons[:NUM_REASONS_SHOWN]
        lines += [f"  {count:,} × {reason}" for reason, count in shown]
        if len(reasons) > len(shown):
            left = sum(count for _, count in reasons[len(shown) :])
            lines.append(f"  {left:,} × other reasons")
    return "\n".join(lines)


def _hint(tables: Sequence[BadRowTable]) -> str:
    if any(len(table.rows) == table.num_rows for table in tables):
        return "No row is left." if len(tables) == 1 else "Of one of them no row is left."
    skip = "Mend them, or set `on_bad_row: skip` to train on the others"
    if any(len(table.rows) > NUM_BAD_ROWS_SHOWN for table in tables):
        return f"{skip}; `trimtab inspect --on-bad-row skip --json` lists them all."
    return f"{skip}."
