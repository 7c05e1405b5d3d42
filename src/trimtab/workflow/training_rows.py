"""Which rows are trained on, and which are held out, under one question's lengths and split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from trimtab.data.batches import Batching
from trimtab.data.rows import TokenRow
from trimtab.data.split import HeldOut, hold_out, without_copies
from trimtab.data.truncation import TruncationCounts, truncate
from trimtab.planning.fact import Fact
from trimtab.planning.questions import TrainingRowsQuestion
from trimtab.planning.settings import Settings
from trimtab.probes.rows import probe_training_rows, rows_digest


@dataclass(frozen=True, slots=True)
class StreamedTotals:
    """Of training rows that are tokenised as the run goes: estimates, and a digest that their
    text, the tokenizer and the settings decide."""

    num_tokens: int
    num_trainable_tokens: int
    digest: str


@dataclass(frozen=True)
class TrainingRows:
    """What is left after hold-out and truncation, with what was cut.

    streamed: None where all rows are tokenised; else `train` makes its rows as they are asked for,
    and `truncation` is estimated.
    eval_truncation: the held-out rows' counts, None where nothing is held out.
    num_duplicates_removed: training rows that equal a held-out row and were taken out.
    """

    train: Sequence[TokenRow]
    eval: Sequence[TokenRow]
    truncation: TruncationCounts
    eval_truncation: TruncationCounts | None
    num_duplicates_removed: int
    streamed: StreamedTotals | None = None

    @cached_property
    def digest(self) -> str:
        """The same for the same rows in the same order, as tokens with their targets."""
        return self.streamed.digest if self.streamed else rows_digest(self.train, self.eval)

    @property
    def num_tokens(self) -> int:
        if self.streamed:
            return self.streamed.num_tokens
        return sum(row.num_tokens for row in self.train)

    @property
    def num_trainable_tokens(self) -> int:
        if self.streamed:
            return self.streamed.num_trainable_tokens
        return sum(row.num_trainable_tokens for row in self.train)


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


def counted_rows_facts(question: TrainingRowsQuestion, rows: TrainingRows) -> Iterator[Fact]:
    """Facts of the question, counted in these rows."""
    return probe_training_rows(
        question,
        rows.train,
        rows.eval,
        counts=rows.truncation,
        eval_counts=rows.eval_truncation,
        num_copies_removed=rows.num_duplicates_removed,
        batching=rows_batching(question),
    )


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
