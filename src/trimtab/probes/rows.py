"""How many rows there are, how long, and what is left of them to train on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from trimtab.data.batches import Batching, num_batch_rows
from trimtab.data.corpus import Corpus
from trimtab.data.rows import TokenRow
from trimtab.data.truncation import TruncationCounts
from trimtab.planning.fact import Fact
from trimtab.planning.questions import TrainingRowsQuestion

NUM_QUANTILES = 201


def probe_corpus(
    corpus: Corpus, num_separate_eval_rows: int | None, cost_s: float
) -> Iterator[Fact]:
    """Facts of `DataQuestion`; lengths are of whole rows, before anything is cut."""
    lengths = np.array([row.num_tokens for row in corpus.rows])
    trainable = sum(row.num_trainable_tokens for row in corpus.rows)
    method = "every row tokenised with the model's tokenizer and template"
    quantiles = np.quantile(lengths, np.linspace(0, 1, NUM_QUANTILES), method="higher")
    yield Fact("data.num_rows", len(corpus.rows), "rows", method=method, cost_s=cost_s)
    yield Fact("data.num_bad_rows", len(corpus.bad_rows), "rows", method=method)
    yield Fact("data.num_duplicate_rows", corpus.num_duplicate_rows, "rows", method=method)
    yield Fact("data.format", corpus.format, method="the rows' columns")
    yield Fact("data.format_because", corpus.format_because, method="the rows' columns")
    yield Fact("data.num_tokens", int(lengths.sum()), "tokens", method=method)
    yield Fact("data.num_trainable_tokens", trainable, "tokens", method=method)
    yield Fact(
        "data.length_mean",
        float(lengths.mean()),
        "tokens",
        spread=float(lengths.std()),
        method=f"{method}; spread: standard deviation",
    )
    yield Fact("data.length_max", int(lengths.max()), "tokens", method=method)
    yield Fact("data.length_quantiles", quantiles.tolist(), "tokens", method=method)
    yield Fact("data.templated", corpus.templated, method="the rows and the model's template")
    yield Fact("data.template_because", corpus.template.because, method="the model's tokenizer")
    if num_separate_eval_rows is not None:
        yield Fact("data.eval_num_rows", num_separate_eval_rows, "rows", method=method)


def rows_digest(train_rows: Sequence[TokenRow], eval_rows: Sequence[TokenRow]) -> str:
    """The same for the same tokens, targets and order, and for nothing else."""
    digest = hashlib.blake2b(digest_size=16)
    for rows in (train_rows, eval_rows):
        digest.update(len(rows).to_bytes(8, "little"))
        for row in rows:
            digest.update(row.num_tokens.to_bytes(8, "little"))
            digest.update(row.input_ids.tobytes())
            digest.update(row.trainable.tobytes())
    return digest.hexdigest()


def probe_training_rows(
    question: TrainingRowsQuestion,
    train_rows: Sequence[TokenRow],
    eval_rows: Sequence[TokenRow],
    *,
    counts: TruncationCounts,
    eval_counts: TruncationCounts | None,
    num_copies_removed: int,
    batching: Batching,
) -> Iterator[Fact]:
    """Facts of `TrainingRowsQuestion`, from the very rows that training will see.

    `eval_counts` is None where nothing is held out.
    """
    method = "held out, truncated and packed as the run will"
    lengths = [row.num_tokens for row in train_rows]
    values = {
        "num_examples": (len(train_rows), "rows"),
        "num_rows": (num_batch_rows(train_rows, batching), "rows"),
        "num_tokens": (sum(lengths), "tokens"),
        "num_trainable_tokens": (sum(row.num_trainable_tokens for row in train_rows), "tokens"),
        "num_truncated": (counts.num_truncated, "rows"),
        "num_tokens_cut": (counts.num_tokens_cut, "tokens"),
        "num_trainable_tokens_cut": (counts.num_trainable_tokens_cut, "tokens"),
        "num_rows_losing_targets": (counts.num_rows_losing_targets, "rows"),
        "num_dropped": (counts.num_dropped + counts.num_left_without_target, "rows"),
        "num_left_without_target": (counts.num_left_without_target, "rows"),
        "num_copies_removed": (num_copies_removed, "rows"),
        "length_max": (max(lengths), "tokens"),
        "length_mean": (sum(lengths) / len(lengths), "tokens"),
        "trainable_length_max": (max(row.num_trainable_tokens for row in train_rows), "tokens"),
        "eval_num_examples": (len(eval_rows), "rows"),
        "eval_num_tokens": (sum(row.num_tokens for row in eval_rows), "tokens"),
        "eval_num_truncated": (eval_counts.num_truncated if eval_counts else 0, "rows"),
        "eval_num_dropped": (eval_counts.num_left_without_target if eval_counts else 0, "rows"),
    }
    yield Fact("rows.key", question.key, method=method)
    yield Fact("rows.digest", rows_digest(train_rows, eval_rows), method="blake2b of all tokens")
    for name, (value, unit) in values.items():
        yield Fact(f"rows.{name}", value, unit, method=method)
