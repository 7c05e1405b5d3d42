"""How many rows there are, how long, and what is left of them to train on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from trimtab.data.batches import Batching, BatchRow, batch_rows
from trimtab.data.corpus import Corpus
from trimtab.data.rows import TokenRow
from trimtab.data.truncation import TruncationCounts
from trimtab.planning.fact import Fact
from trimtab.planning.questions import TrainingRowsQuestion

NUM_QUANTILES = 201
NUM_LONGEST = 256
SHORTEST_CANDIDATE = 64
CANDIDATE_QUANTILES = (0.95, 0.99, 0.995)


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
    yield Fact(
        "data.truncation",
        truncation_at_candidates(corpus.rows, lengths),
        "[max_length, rows, tokens, trainable tokens]",
        method=f"{method}; what each max_length would cut, keeping the start",
    )
    yield Fact("data.templated", corpus.templated, method="the rows and the model's template")
    yield Fact("data.template_because", corpus.template.because, method="the model's tokenizer")
    if num_separate_eval_rows is not None:
        yield Fact("data.eval_num_rows", num_separate_eval_rows, "rows", method=method)


def truncation_at_candidates(
    rows: Sequence[TokenRow], lengths: npt.NDArray[np.int64]
) -> list[list[int]]:
    """[max_length, rows cut, tokens cut, trainable tokens cut] at each candidate length, rising.

    Candidates are the powers of two from 64 to the longest row, and the lengths that 95, 99 and
    99.5% of the rows keep to.
    """
    longest = int(lengths.max())
    powers = [1 << e for e in range(SHORTEST_CANDIDATE.bit_length() - 1, longest.bit_length() + 1)]
    quantiles = np.quantile(lengths, CANDIDATE_QUANTILES, method="higher").tolist()
    candidates = sorted({*(power for power in powers if power <= longest), *quantiles, longest})
    cuts = []
    for length in candidates:
        too_long = np.flatnonzero(lengths > length).tolist()
        num_targets_cut = sum(int(rows[index].trainable[length:].sum()) for index in too_long)
        num_tokens_cut = int((lengths[too_long] - length).sum())
        cuts.append([int(length), len(too_long), num_tokens_cut, num_targets_cut])
    return cuts


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
    started = time.perf_counter()
    method = "held out, truncated and packed as the run will"
    units = batch_rows(train_rows, batching)
    longest, most_scored = _largest_units(train_rows, units)
    lengths = [row.num_tokens for row in train_rows]
    values = {
        "num_examples": (len(train_rows), "rows"),
        "num_rows": (len(units), "rows"),
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
    largest = f"{method}; at most {NUM_LONGEST} rows, packed ones as in the first epoch"
    yield Fact("rows.longest_lengths", longest, "tokens", method=largest)
    yield Fact(
        "rows.most_scored",
        most_scored,
        "positions",
        method=largest,
        cost_s=time.perf_counter() - started,
    )


def _largest_units(
    rows: Sequence[TokenRow], units: Sequence[BatchRow]
) -> tuple[list[int], list[int]]:
    """Tokens of the batch rows that have most, and targets of those that have most of these."""
    num_tokens = [row.num_tokens for row in rows]
    num_trainable = [row.num_trainable_tokens for row in rows]
    longest, most_scored = (
        sorted((sum(counts[index] for index in unit) for unit in units), reverse=True)
        for counts in (num_tokens, num_trainable)
    )
    return longest[:NUM_LONGEST], most_scored[:NUM_LONGEST]
