"""What the data is, as the record that the page and `inspect` read."""

from __future__ import annotations

from itertools import islice

from trimtab.data.inspection import length_histogram, segments
from trimtab.data.streaming import good_rows
from trimtab.runs.records import DataRecord, Segment
from trimtab.workflow.materials import Materials
from trimtab.workflow.training_rows import TrainingRows

NUM_EXAMPLES = 3


def data_record(
    materials: Materials, rows: TrainingRows, num_examples: int = NUM_EXAMPLES
) -> DataRecord:
    """Counts, the length histogram and the first decoded training rows."""
    corpus = materials.corpus
    counted = materials.counted_corpus
    histogram = length_histogram(counted.corpus.rows)
    is_estimated = rows.streamed is not None
    counts = rows.truncation
    examples = tuple(
        tuple(Segment(part.text, part.trained) for part in segments(row, materials.tokenizer))
        for row in islice(good_rows(rows.train), num_examples)
    )
    return DataRecord(
        format=corpus.format,
        format_because=corpus.format_because,
        template=corpus.template.name,
        template_because=corpus.template.because,
        templated=counted.corpus.templated,
        num_rows=corpus.num_rows,
        num_bad_rows=corpus.num_bad_rows,
        num_duplicate_rows=corpus.num_duplicate_rows,
        num_duplicates_of_held_out=rows.num_duplicates_removed,
        num_train_examples=len(rows.train),
        num_eval_examples=len(rows.eval),
        num_tokens=rows.num_tokens,
        num_trainable_tokens=rows.num_trainable_tokens,
        num_truncated=counts.num_truncated,
        num_tokens_cut=counts.num_tokens_cut,
        num_trainable_tokens_cut=counts.num_trainable_tokens_cut,
        num_dropped=counts.num_dropped + counts.num_left_without_target,
        histogram_edges=histogram.edges,
        histogram_counts=tuple(
            round(count * counted.rows_each_stands_for) for count in histogram.counts
        ),
        examples=examples,
        num_tokenised=counted.num_tokenised if is_estimated else None,
    )
