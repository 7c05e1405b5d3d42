"""A corpus estimated from some of its rows: the others have lengths by their size alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from trimtab.data.corpus import Corpus
from trimtab.data.rows import TokenRow
from trimtab.data.sampling import SourceSample
from trimtab.data.split import num_duplicate_rows

MAX_ESTIMATED_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class EstimatedCorpus:
    """`corpus.rows` stand for all rows of the dataset; its conversations are the sampled ones'.

    num_tokenised: rows whose tokens are known. num_rows: all that can be trained on.
    rows_each_stands_for: 1 unless the dataset is too long to give each row a place.
    num_tokens_margin, num_trainable_margin: half of the 95% interval of each of the two totals,
    in tokens; 0 where all rows are tokenised.
    """

    corpus: Corpus
    num_tokenised: int
    num_rows: int
    num_bad_rows: int
    rows_each_stands_for: float
    num_tokens_margin: float = 0.0
    num_trainable_margin: float = 0.0

    @classmethod
    def known(cls, corpus: Corpus) -> EstimatedCorpus:
        """Of a corpus whose rows are all tokenised."""
        num_rows = len(corpus.rows)
        return cls(corpus, num_rows, num_rows, len(corpus.bad_rows), rows_each_stands_for=1.0)


def estimate(sample: SourceSample, corpus: Corpus) -> EstimatedCorpus:
    """All rows, from `corpus`, which holds the sampled ones that can be trained on.

    A row that was not tokenised has the tokens, and the trained ones among them, that a straight
    line through the sampled rows gives for its size; its trained tokens are its last. Rows of
    equal content have equal tokens.
    """
    known = dict(zip(_places(sample, corpus), corpus.rows, strict=True))
    num_bad = _num_bad(sample, corpus)
    num_rows = max(len(known), sample.num_rows - num_bad)
    places = _chosen_places(sample, known, min(num_rows, MAX_ESTIMATED_ROWS))
    lengths, trained, margins = _lines(sample, known, num_rows)
    longest = int(lengths.max())
    # Views of one mask and of one number, so that a row that is not there takes no memory.
    mask = np.concatenate([np.zeros(longest, dtype=np.bool_), np.ones(longest, dtype=np.bool_)])
    token_ids = (sample.contents & 0x7FFFFFFF).astype(np.int32)
    rows = []
    for row_id, place in enumerate(places.tolist()):
        if place in known:
            row = known[place]
            rows.append(TokenRow(row_id, row.input_ids, row.trainable))
            continue
        length, num_trained = int(lengths[place]), int(trained[place])
        start = longest + num_trained - length
        input_ids: npt.NDArray[np.int32] = np.ndarray(
            (length,), np.int32, buffer=token_ids, offset=4 * place, strides=(0,)
        )
        rows.append(TokenRow(row_id, input_ids, mask[start : start + length]))
    return EstimatedCorpus(
        corpus=replace(corpus, rows=tuple(rows), num_duplicate_rows=_num_duplicates(sample, rows)),
        num_tokenised=len(known),
        num_rows=num_rows,
        num_bad_rows=num_bad,
        rows_each_stands_for=num_rows / len(rows),
        num_tokens_margin=margins[0],
        num_trainable_margin=margins[1],
    )


def _num_bad(sample: SourceSample, corpus: Corpus) -> int:
    """All that cannot be understood, and as large a share of the others as was refused later."""
    num_known_bad = len(sample.bad_places)
    share = (len(corpus.bad_rows) - num_known_bad) / len(sample.places)
    return num_known_bad + round(share * (sample.num_rows - num_known_bad))


def _num_duplicates(sample: SourceSample, rows: Sequence[TokenRow]) -> int:
    """Rows of equal tokens where all are known, else rows of equal content."""
    if len(rows) == sample.num_rows == len(sample.places):
        return num_duplicate_rows(rows)
    return sample.num_rows - len(np.unique(sample.contents))


def _places(sample: SourceSample, corpus: Corpus) -> list[int]:
    """The index among all rows of each of the corpus's, which come in the sample's order."""
    sampled = iter(zip(sample.read.rows, sample.places, strict=True))
    return [next(place for row, place in sampled if row.where == where) for where in corpus.sources]


def _chosen_places(
    sample: SourceSample, known: dict[int, TokenRow], num_rows: int
) -> npt.NDArray[np.int64]:
    """Rising indices of `num_rows` rows: the known ones, and others at even steps."""
    unknown = np.setdiff1d(np.arange(sample.num_rows), [*known, *_refused_places(sample, known)])
    num_others = min(max(0, num_rows - len(known)), len(unknown))
    steps = np.linspace(0, len(unknown) - 1, num_others).round().astype(np.int64)
    others = unknown[steps] if num_others else unknown[:0]
    return np.sort(np.concatenate([np.array([*known], dtype=np.int64), others]))


def _refused_places(sample: SourceSample, known: dict[int, TokenRow]) -> list[int]:
    return [*sample.bad_places, *(place for place in sample.places if place not in known)]


def _lines(
    sample: SourceSample, known: dict[int, TokenRow], num_rows: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[float, float]]:
    """Tokens, and trained tokens, of every row by its size: int64 [num_rows] each; the margins of
    their totals."""
    sizes = sample.sizes[[*known]].astype(np.float64)
    lengths = np.array([row.num_tokens for row in known.values()])
    trained = np.array([row.num_trainable_tokens for row in known.values()])
    all_sizes = sample.sizes.astype(np.float64)
    by_size = np.maximum(2, _fitted(sizes, lengths, all_sizes))
    by_size_trained = np.clip(_fitted(sizes, trained, all_sizes), 1, by_size - 1)
    margins = (
        _margin(lengths - by_size[[*known]], num_rows),
        _margin(trained - by_size_trained[[*known]], num_rows),
    )
    by_size[[*known]] = lengths
    by_size_trained[[*known]] = trained
    return by_size, by_size_trained, margins


def _margin(residuals: npt.NDArray[np.int64], num_rows: int) -> float:
    """Half of the 95% interval of a total that a line through some of the rows gives.

    The regression estimator of survey sampling (Cochran, Sampling Techniques, 1977, chapter 7),
    with the rows at even steps taken as drawn at random.
    """
    num_known = len(residuals)
    if num_known >= num_rows:
        return 0.0
    deviation = float(np.sqrt(residuals @ residuals / max(1, num_known - 2)))
    unseen = 1 - num_known / num_rows
    return 1.96 * num_rows * deviation * float(np.sqrt(unseen / num_known))


def _fitted(
    sizes: npt.NDArray[np.float64],
    tokens: npt.NDArray[np.int64],
    all_sizes: npt.NDArray[np.float64],
) -> npt.NDArray[np.int64]:
    """The least squares line through (size, tokens); through 0 where all sizes are alike."""
    spread = sizes - sizes.mean()
    squares = float(spread @ spread)
    if squares > 0:
        slope = float(spread @ tokens) / squares
    else:
        slope = float(tokens.sum()) / max(1.0, float(sizes.sum()))
    start = float(tokens.mean()) - slope * float(sizes.mean())
    return np.rint(start + slope * all_sizes).astype(np.int64)
