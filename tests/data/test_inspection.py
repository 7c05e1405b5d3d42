"""What a reader is shown of a row and of all lengths."""

from __future__ import annotations

import numpy as np
import pytest
from support.tiny import tiny_tokenizer
from transformers import PreTrainedTokenizerFast

from trimtab.data.inspection import LengthHistogram, Segment, length_histogram, segments
from trimtab.data.rows import TokenRow


def row(num_tokens: int) -> TokenRow:
    trainable = np.arange(num_tokens) > 0
    return TokenRow(0, np.arange(num_tokens, dtype=np.int32), trainable)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def encoded(
    tokenizer: PreTrainedTokenizerFast, *parts: tuple[str, bool]
) -> tuple[TokenRow, list[int]]:
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text, _ in parts]
    masks = [[trained] * len(part) for part, (_, trained) in zip(ids, parts, strict=True)]
    made = TokenRow(4, np.concatenate(ids).astype(np.int32), np.concatenate(masks))
    return made, [len(part) for part in ids]


def test_runs_of_one_mask_become_segments(tokenizer: PreTrainedTokenizerFast) -> None:
    parts = (("<|im_start|>user\nhi", False), (" there<|im_end|>", True), ("\n é", False))
    made, lengths = encoded(tokenizer, *parts)
    assert segments(made, tokenizer) == tuple(
        Segment(text, trained, count) for (text, trained), count in zip(parts, lengths, strict=True)
    )


def test_a_row_of_one_mask_is_one_segment(tokenizer: PreTrainedTokenizerFast) -> None:
    made, lengths = encoded(tokenizer, ("the fox", True))
    assert segments(made, tokenizer) == (Segment("the fox", True, lengths[0]),)


def test_a_histogram_by_hand() -> None:
    rows = [row(length) for length in (3, 3, 5, 4, 3)]
    assert length_histogram(rows) == LengthHistogram((3, 4, 5, 6), (3, 1, 1))


@pytest.mark.parametrize("lengths", [(7,), (1, 5000), (64, 128), tuple(range(10, 400, 7))])
def test_every_row_is_in_one_bin(lengths: tuple[int, ...]) -> None:
    histogram = length_histogram([row(length) for length in lengths])
    assert sum(histogram.counts) == len(lengths)
    assert len(histogram.counts) == len(histogram.edges) - 1 <= 20
    for index, count in enumerate(histogram.counts):
        inside = [
            length
            for length in lengths
            if histogram.edges[index] <= length < histogram.edges[index + 1]
        ]
        assert len(inside) == count
    assert histogram.counts[0] > 0
    assert histogram.counts[-1] > 0
