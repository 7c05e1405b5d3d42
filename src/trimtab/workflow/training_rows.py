"""Which rows are trained on, and which are held out, under one question's lengths and split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trimtab.data.batches import Batching
from trimtab.data.rows import TokenRow
from trimtab.data.split import HeldOut, hold_out, without_copies
from trimtab.data.truncation import TruncationCounts, truncate
from trimtab.planning.questions import TrainingRowsQuestion
from trimtab.planning.settings import Settings


@dataclass(frozen=True)
class TrainingRows:
    """What is left after hold-out and truncation, with what was cut.

    eval_truncation: the held-out rows' counts, None where nothing is held out.
    num_duplicates_removed: training rows that equal a held-out row and were taken out.
    """

    train: tuple[TokenRow, ...]
    eval: tuple[TokenRow, ...]
    truncation: TruncationCounts
    eval_truncation: TruncationCounts | None
    num_duplicates_removed: int


def separate_eval_dataset(eval_dataset: float | str) -> str | None:
    """The dataset that is evaluated on; None where rows of the training data are, or none."""
    if not isinstance(eval_dataset, str) or eval_dataset in {"auto", "none"}:
        return None
    return eval_dataset


def rows_question(settings: Settings) -> TrainingRowsQuestion:
    """The question whose answer are the rows that these settings train on."""
    return TrainingRowsQuestion(
        max_length=settings.max_length,
        truncation_mode=settings.truncation_mode,
        packing=settings.packing,
        num_eval_rows=settings.num_eval_rows,
        eval_dataset=separate_eval_dataset(settings.eval_dataset) or "",
        data_seed=settings.data_seed,
    )


def training_rows(
    question: TrainingRowsQuestion, rows: Sequence[TokenRow], eval_rows: Sequence[TokenRow]
) -> TrainingRows:
    """`eval_rows` are those of their own dataset, empty where they are held out of `rows`.

    Raises DataError where nothing is left to train on.
    """
    if question.eval_dataset:
        split = without_copies(rows, eval_rows)
    elif question.num_eval_rows:
        split = hold_out(rows, question.num_eval_rows, question.data_seed)
    else:
        split = HeldOut(tuple(rows), (), 0)
    train, counts = truncate(split.train_rows, question.max_length, question.truncation_mode)
    held_out, eval_counts = split.eval_rows, None
    if held_out:
        held_out, eval_counts = truncate(held_out, question.max_length, "keep_start")
    return TrainingRows(train, held_out, counts, eval_counts, split.num_duplicates_removed)


def rows_batching(question: TrainingRowsQuestion) -> Batching:
    """A batching that counts packed rows; sizes do not matter for that."""
    return replace(
        _COUNTING,
        packing=question.packing,
        max_length=question.max_length,
        data_seed=question.data_seed,
    )


_COUNTING = Batching(
    per_device_train_batch_size=1,
    gradient_accumulation_steps=1,
    packing=False,
    max_length=1,
    padding="none",
    padding_side="right",
    pad_token_id=0,
    pad_to_multiple_of=None,
    data_seed=0,
)
