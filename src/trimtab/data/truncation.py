"""What becomes of rows longer than `max_length`, counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trimtab.data.rows import TokenRow
from trimtab.errors import DataError
from trimtab.hyperparameters.config import TruncationMode

NUM_ROWS_NAMED = 5


@dataclass(frozen=True, slots=True)
class TruncationCounts:
    """What truncation did to the rows.

    `num_truncated` rows were cut or split; `num_tokens_cut` tokens of them are in no row any more,
    and `num_trainable_tokens_cut` targets of `num_rows_losing_targets` rows are not trained on.
    `num_dropped` rows were dropped as too long. `num_left_without_target` rows, or pieces of rows,
    kept no target and were dropped too; `row_ids_left_without_target` names their rows.
    """

    num_truncated: int
    num_tokens_cut: int
    num_trainable_tokens_cut: int
    num_rows_losing_targets: int
    num_dropped: int
    num_left_without_target: int
    row_ids_left_without_target: tuple[int, ...]


def truncate(
    rows: Sequence[TokenRow], max_length: int, mode: TruncationMode
) -> tuple[tuple[TokenRow, ...], TruncationCounts]:
    """Rows of at most `max_length` tokens, each with a target, and what that cost.

    `keep_start` cuts the end off; `split` makes pieces, which keep the row's id and its targets
    except the first token of a piece, before which nothing stands; `drop` leaves the row out;
    `error` raises.

    Raises DataError under `error`, and where no row is left.
    """
    too_long = [row for row in rows if row.num_tokens > max_length]
    if mode == "error" and too_long:
        raise _too_long(too_long, max_length)
    kept: list[TokenRow] = []
    targets_cut: list[int] = []
    without_target: list[int] = []
    num_tokens_cut = 0
    for row in rows:
        is_too_long = row.num_tokens > max_length
        if is_too_long and mode == "drop":
            continue
        pieces = list(_pieces(row, max_length, mode)) if is_too_long else [row]
        trained = [piece for piece in pieces if piece.trainable.any()]
        without_target += [row.row_id] * (len(pieces) - len(trained))
        kept += trained
        if is_too_long:
            num_tokens_cut += row.num_tokens - sum(piece.num_tokens for piece in trained)
            left = sum(piece.num_trainable_tokens for piece in trained)
            targets_cut.append(row.num_trainable_tokens - left)
    counts = TruncationCounts(
        num_truncated=len(targets_cut),
        num_tokens_cut=num_tokens_cut,
        num_trainable_tokens_cut=sum(targets_cut),
        num_rows_losing_targets=sum(cut > 0 for cut in targets_cut),
        num_dropped=len(too_long) if mode == "drop" else 0,
        num_left_without_target=len(without_target),
        row_ids_left_without_target=tuple(dict.fromkeys(without_target)),
    )
    if not kept:
        raise DataError(
            f"no row is left to train on: of {len(rows):,} rows, {len(too_long):,} are longer than "
            f"max_length {max_length} and {counts.num_left_without_target:,} kept no token to "
            "train on.",
            hint="Raise `max_length`.",
        )
    return tuple(kept), counts


def _pieces(row: TokenRow, max_length: int, mode: TruncationMode) -> Iterator[TokenRow]:
    stop = row.num_tokens if mode == "split" else max_length
    for start in range(0, stop, max_length):
        yield _piece(row, start, max_length)


def cut_at_end(row: TokenRow, max_length: int) -> TokenRow:
    """What `keep_start` leaves of a row; it may have no target left."""
    return _piece(row, 0, max_length)


def _piece(row: TokenRow, start: int, max_length: int) -> TokenRow:
    trainable = row.trainable[start : start + max_length].copy()
    trainable[0] = False
    return TokenRow(row.row_id, row.input_ids[start : start + max_length], trainable)


def _too_long(too_long: Sequence[TokenRow], max_length: int) -> DataError:
    named = ", ".join(
        f"row {row.row_id} ({row.num_tokens:,} tokens)" for row in too_long[:NUM_ROWS_NAMED]
    )
    more = len(too_long) - NUM_ROWS_NAMED
    tail = f" and {more:,} more" if more > 0 else ""
    return DataError(
        f"{len(too_long):,} rows are longer than max_length {max_length}: {named}{tail}.",
        hint="Raise `max_length`, or set `truncation_mode` to keep_start, drop or split.",
    )
