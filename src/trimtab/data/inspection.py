"""What the model will be trained on, for a reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from transformers import PreTrainedTokenizerFast

from trimtab.data.rows import TokenRow

MAX_NUM_BINS = 20


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens that are all trained on, or all not, as text."""

    text: str
    trained: bool
    num_tokens: int


@dataclass(frozen=True, slots=True)
class LengthHistogram:
    """Rows by length: `counts[i]` rows have at least `edges[i]` and under `edges[i + 1]` tokens."""

    edges: tuple[int, ...]
    counts: tuple[int, ...]


def segments(row: TokenRow, tokenizer: PreTrainedTokenizerFast) -> tuple[Segment, ...]:
    """The row in order, special tokens included; the texts joined are the row's text."""
    changes = np.flatnonzero(np.diff(row.trainable)) + 1
    bounds = [0, *changes.tolist(), row.num_tokens]
    found = []
    decoded = ""
    for start, end in pairwise(bounds):
        # A run alone would lose its leading space in tokenizers that mark words by their start.
        so_far = str(tokenizer.decode(row.input_ids[:end], clean_up_tokenization_spaces=False))
        found.append(Segment(so_far[len(decoded) :], bool(row.trainable[start]), end - start))
        decoded = so_far
    return tuple(found)


def length_histogram(rows: Sequence[TokenRow]) -> LengthHistogram:
    """Rows, at least one, by length: at most 20 bins, whose one width is a power of two."""
    lengths = np.array([row.num_tokens for row in rows])
    least, most = int(lengths.min()), int(lengths.max())
    width = _width(least, most)
    first = least // width * width
    edges = np.arange(first, most + width + 1, width)
    edges = edges[: int(np.searchsorted(edges, most, side="right")) + 1]
    # numpy's last bin is closed; it holds no length of its upper edge, which lies above them all.
    counts, _ = np.histogram(lengths, edges)
    return LengthHistogram(tuple(edges.tolist()), tuple(counts.tolist()))


def _width(least: int, most: int) -> int:
    width = 1
    while most // width - least // width >= MAX_NUM_BINS:
        width *= 2
    return width
