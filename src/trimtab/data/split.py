"""Which rows are copies, which are held out, and that none of these is trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.data.rows import TokenRow
from trimtab.errors import DataError

# Keeps the draw apart from the orders of the epochs, which are seeded by (data_seed, epoch).
HOLD_OUT_STREAM = 2**32 - 1


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Both sides in the order of the source.

    `num_duplicates_removed`: rows left out of training since a held-out row has the same tokens.
    """

    train_rows: tuple[TokenRow, ...]
    eval_rows: tuple[TokenRow, ...]
    num_duplicates_removed: int


def hold_out(rows: Sequence[TokenRow], num_eval_rows: int, data_seed: int) -> HeldOut:
    """Hold out `num_eval_rows` rows, drawn by the seed, and keep their copies out of training.

    Raises DataError where nothing would be left to train on.
    """
    chosen = set(drawn_places(len(rows), num_eval_rows, data_seed))
    eval_rows = tuple(row for index, row in enumerate(rows) if index in chosen)
    others = [row for index, row in enumerate(rows) if index not in chosen]
    return without_copies(others, eval_rows)


def drawn_places(num_rows: int, num_eval_rows: int, data_seed: int) -> list[int]:
    """Which of the rows are held out. Raises DataError where that would be all."""
    if num_eval_rows >= num_rows:
        raise DataError(
            f"{num_eval_rows:,} rows cannot be held out of {num_rows:,}.",
            hint="Set `eval_dataset` to a smaller fraction, to a path or to `none`.",
        )
    generator = np.random.Generator(np.random.PCG64([data_seed, HOLD_OUT_STREAM]))
    drawn: list[int] = generator.permutation(num_rows)[:num_eval_rows].tolist()
    return drawn


def without_copies(train_rows: Sequence[TokenRow], eval_rows: Sequence[TokenRow]) -> HeldOut:
    """Leave out of training each row that has the tokens of a held-out row.

    Raises DataError where that leaves nothing to train on.
    """
    held_out = {_token_digest(row) for row in eval_rows}
    kept = tuple(row for row in train_rows if _token_digest(row) not in held_out)
    if not kept:
        raise DataError(
            f"each of the {len(train_rows):,} training rows is a copy of a held-out row.",
            hint="Set `eval_dataset` to other rows or to `none`.",
        )
    return HeldOut(kept, tuple(eval_rows), len(train_rows) - len(kept))


def num_duplicate_rows(rows: Sequence[TokenRow]) -> int:
    """How many rows have the tokens of an earlier one."""
    return len(rows) - len({_token_digest(row) for row in rows})


def _token_digest(row: TokenRow) -> bytes:
    """The same for rows of the same tokens."""
    return hashlib.blake2b(row.input_ids.tobytes(), digest_size=16).digest()
