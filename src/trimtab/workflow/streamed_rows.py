"""A training dataset that is too long to be tokenised beforehand: checked, indexed and sampled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from trimtab.data.corpus import Corpus
from trimtab.data.estimates import EstimatedCorpus, estimate
from trimtab.data.rows import TokenRow
from trimtab.data.sampling import SourceSample
from trimtab.data.streaming import RowIndex, StreamedRows, split_places, streamed_corpus
from trimtab.data.tokens import special_tokens
from trimtab.data.truncation import TruncationCounts, truncate
from trimtab.planning.fact import Fact, Facts
from trimtab.planning.questions import TrainingRowsQuestion
from trimtab.workflow.estimating import estimated_rows, training_rows_facts
from trimtab.workflow.training_rows import StreamedTotals, TrainingRows


@dataclass(frozen=True)
class StreamedDataset:
    """The sample's own corpus, all rows as estimated from it, and all rows as they are made.

    tokenisation: a digest of the tokenizer, the template and what else makes tokens of a row.
    """

    sample: SourceSample
    sampled: Corpus
    tokenisation: str

    @cached_property
    def estimated(self) -> EstimatedCorpus:
        return estimate(self.sample, self.sampled)

    @cached_property
    def index(self) -> RowIndex:
        return RowIndex(self.sample)

    @cached_property
    def corpus(self) -> Corpus:
        num_duplicates = self.estimated.corpus.num_duplicate_rows
        return streamed_corpus(self.index, self.sampled, num_duplicates)

    def rows(
        self,
        question: TrainingRowsQuestion,
        eval_corpus: Corpus | None,
        eval_contents: npt.NDArray[np.int64],
    ) -> TrainingRows:
        """As `training_rows`: the held-out rows tokenised, those to train on as they come.

        `eval_corpus` and its rows' contents are of a dataset of its own to evaluate on.
        Raises DataError as `training_rows` does.
        """
        all_rows = self.corpus.rows
        assert isinstance(all_rows, StreamedRows)
        num_eval_rows = 0 if eval_corpus else question.num_eval_rows
        split = split_places(self.index, num_eval_rows, question.data_seed, eval_contents)
        refuses_long = question.truncation_mode == "error"
        train = all_rows.chosen(split.train, question.max_length, refuses_long=refuses_long)
        held_out = eval_corpus.rows if eval_corpus else self._held_out(all_rows, split.eval)
        eval_rows: tuple[TokenRow, ...] = ()
        eval_counts: TruncationCounts | None = None
        if held_out:
            eval_rows, eval_counts = truncate(held_out, question.max_length, "keep_start")
        facts = Facts().adding(self._facts(question))
        return TrainingRows(
            train,
            eval_rows,
            truncation=_counts(facts),
            eval_truncation=eval_counts,
            num_duplicates_removed=split.num_duplicates_removed,
            streamed=StreamedTotals(
                num_tokens=facts.integer("rows.num_tokens"),
                num_trainable_tokens=facts.integer("rows.num_trainable_tokens"),
                digest=self._digest(question, eval_rows),
            ),
        )

    def sampled_rows(self, question: TrainingRowsQuestion) -> tuple[TokenRow, ...]:
        """Rows with tokens of their own to measure updates on, the largest of all among them."""
        return truncate(self.sampled.rows, question.max_length, "keep_start")[0]

    def counted_rows(self, question: TrainingRowsQuestion) -> TrainingRows:
        """Rows with estimated lengths that stand for all, to count micro-batches of."""
        return estimated_rows(_of_sample(question), self.estimated, self.estimated)

    def facts(self, question: TrainingRowsQuestion, rows: TrainingRows) -> Iterator[Fact]:
        """Facts of the question: counts where `rows` has them, else estimates."""
        assert rows.streamed is not None
        eval_counts = rows.eval_truncation
        known: dict[str, int] = {
            "num_examples": len(rows.train),
            **({} if question.packing else {"num_rows": len(rows.train)}),
            "num_copies_removed": rows.num_duplicates_removed,
            "eval_num_examples": len(rows.eval),
            "eval_num_tokens": sum(row.num_tokens for row in rows.eval),
            "eval_num_truncated": eval_counts.num_truncated if eval_counts else 0,
            "eval_num_dropped": eval_counts.num_left_without_target if eval_counts else 0,
        }
        for fact in self._facts(question):
            name = fact.id.removeprefix("rows.")
            if name in known:
                yield replace(fact, value=known[name], method="every row checked and indexed")
            else:
                yield fact
        yield Fact(
            "rows.digest",
            rows.digest,
            method="blake2b of all rows' text, the tokenizer, the template and the settings",
        )

    def _facts(self, question: TrainingRowsQuestion) -> Iterator[Fact]:
        rows = self.counted_rows(question)
        return training_rows_facts(question, rows, self.estimated, self.estimated)

    def _held_out(self, rows: StreamedRows, places: npt.NDArray[np.int64]) -> tuple[TokenRow, ...]:
        made = rows.made(places.tolist()) if len(places) else []
        return tuple(row for row in made if isinstance(row, TokenRow))

    def _digest(self, question: TrainingRowsQuestion, eval_rows: tuple[TokenRow, ...]) -> str:
        digest = hashlib.blake2b(digest_size=16)
        parts = [self.sample.digest, self.tokenisation, question.key, len(self.index)]
        digest.update(json.dumps(parts).encode())
        for row in eval_rows:
            digest.update(row.input_ids.tobytes() + row.trainable.tobytes())
        return digest.hexdigest()


def streamed_dataset(
    sample: SourceSample, sampled: Corpus, tokenizer: PreTrainedTokenizerFast
) -> StreamedDataset:
    """`sampled` is the corpus of the sample's rows."""
    way = sampled.way
    template = [way.template.name, way.template.source_text, str(way.template.day)]
    settings = [
        way.config.completion_only_loss,
        way.config.assistant_only_loss,
        dict(way.detection.columns),
        way.detection.format,
        way.config.on_bad_row,
    ]
    parts: list[Any] = [template, special_tokens(tokenizer), settings]
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=16)
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    return StreamedDataset(sample, sampled, digest.hexdigest())


def _of_sample(question: TrainingRowsQuestion) -> TrainingRowsQuestion:
    """Without a dataset of its own to evaluate on, and cutting what will be refused when met."""
    return replace(
        question,
        truncation_mode="keep_start",
        eval_dataset="",
        num_eval_rows=0 if question.eval_dataset else question.num_eval_rows,
    )


def _counts(facts: Facts) -> TruncationCounts:
    return TruncationCounts(
        num_truncated=facts.integer("rows.num_truncated"),
        num_tokens_cut=facts.integer("rows.num_tokens_cut"),
        num_trainable_tokens_cut=facts.integer("rows.num_trainable_tokens_cut"),
        num_rows_losing_targets=facts.integer("rows.num_rows_losing_targets"),
        num_dropped=0,
        num_left_without_target=facts.integer("rows.num_left_without_target"),
        row_ids_left_without_target=(),
    )
