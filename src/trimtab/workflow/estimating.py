"""Facts about rows of which only a sample was tokenised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from trimtab.data.estimates import EstimatedCorpus
from trimtab.planning.fact import Fact
from trimtab.planning.questions import TrainingRowsQuestion
from trimtab.probes.estimates import corpus_facts, rows_facts
from trimtab.probes.rows import probe_corpus
from trimtab.workflow.training_rows import TrainingRows, counted_rows_facts, training_rows


def data_facts(
    estimated: EstimatedCorpus, num_separate_eval_rows: int | None, cost_s: float
) -> Iterator[Fact]:
    """Facts of `DataQuestion`."""
    measured = probe_corpus(estimated.corpus, num_separate_eval_rows, cost_s)
    return corpus_facts(measured, estimated)


def estimated_rows(
    question: TrainingRowsQuestion, estimated: EstimatedCorpus, held_out_of: EstimatedCorpus
) -> TrainingRows:
    """Rows that stand for those of the question; of several each, as many fewer are held out."""
    num_eval_rows = round(question.num_eval_rows / estimated.rows_each_stands_for)
    return training_rows(
        replace(question, num_eval_rows=num_eval_rows),
        estimated.corpus.rows,
        held_out_of.corpus.rows,
    )


def training_rows_facts(
    question: TrainingRowsQuestion,
    rows: TrainingRows,
    estimated: EstimatedCorpus,
    held_out_of: EstimatedCorpus,
) -> Iterator[Fact]:
    """Facts of `TrainingRowsQuestion`, without a digest, from `estimated_rows`."""
    facts = counted_rows_facts(question, rows)
    return rows_facts(facts, estimated, held_out_of, packing=question.packing)
