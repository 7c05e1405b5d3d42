"""How large a micro-batch is, in the three measures that memory and time follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from trimtab.planning.fact import Facts
from trimtab.planning.positions import Layout, padded_length, positions_per_example


@dataclass(frozen=True, slots=True)
class MicroBatchSize:
    """num_tokens: positions that the layers compute, pads included; num_scored: positions that
    reach the output head; sum_length_squared: Σ length² over the documents."""

    num_tokens: float
    num_scored: float
    sum_length_squared: float

    def times(self, factor: float) -> MicroBatchSize:
        return MicroBatchSize(
            self.num_tokens * factor, self.num_scored * factor, self.sum_length_squared * factor
        )


def largest_micro_batch(
    facts: Facts, layout: Layout, num_rows: int, *, packing: bool
) -> MicroBatchSize:
    """The `num_rows` largest rows together, or all: the most that any order of them can bring.

    Scored positions and lengths are taken at their worst separately, though one row may not be
    both.
    """
    num_rows = min(num_rows, facts.integer("rows.num_rows"))
    if layout.padding != "none" and not packing:
        length = _padded_length(facts, layout)
        scored = num_rows * facts.integer("rows.trainable_length_max")
        return MicroBatchSize(num_rows * length, scored, num_rows * length**2)
    lengths = _largest(facts, "rows.longest_lengths", num_rows)
    if not lengths:
        length = layout.max_length if packing else facts.integer("rows.length_max")
        scored = facts.integer("rows.trainable_length_max")
        if packing:
            # Packed rows mix examples, so the share of trained tokens is near the data's own.
            share = facts.number("rows.num_trainable_tokens") / facts.number("rows.num_tokens")
            scored = min(max(scored, math.ceil(share * length)), length)
        return MicroBatchSize(num_rows * length, num_rows * scored, num_rows * length**2)
    return MicroBatchSize(
        sum(lengths),
        sum(_largest(facts, "rows.most_scored", num_rows)),
        sum(length**2 for length in lengths),
    )


def mean_micro_batch(
    facts: Facts, layout: Layout, num_rows: int, *, packing: bool
) -> MicroBatchSize:
    """The mean over the run of micro-batches of `num_rows` rows."""
    examples = facts.number("rows.num_examples") / facts.number("rows.num_rows")
    positions = positions_per_example(facts, layout, num_rows)
    num_examples = num_rows * examples
    return MicroBatchSize(
        num_examples * positions.num_computed,
        num_examples * positions.num_scored,
        num_examples * positions.num_computed**2,
    )


def examples_per_update(facts: Facts, global_batch_size: int) -> float:
    """The mean number of examples in an update; never more than there are."""
    num_examples = facts.number("rows.num_examples")
    return min(global_batch_size * (num_examples / facts.number("rows.num_rows")), num_examples)


def mean_examples(facts: Facts, num_examples: int) -> MicroBatchSize:
    """A micro-batch of so many examples of mean size, without padding."""
    total = facts.number("rows.num_examples")
    num_tokens = facts.number("rows.num_tokens") / total
    num_scored = facts.number("rows.num_trainable_tokens") / total
    return MicroBatchSize(num_tokens, num_scored, num_tokens**2).times(num_examples)


def _padded_length(facts: Facts, layout: Layout) -> int:
    longest = facts.integer("rows.length_max")
    length = layout.max_length if layout.padding == "max_length" else longest
    return padded_length(length, layout.pad_to_multiple_of)


def _largest(facts: Facts, fact_id: str, num_rows: int) -> Sequence[int]:
    """The largest `num_rows` values of a falling list that may be cut off at its end."""
    if fact_id not in facts:
        return ()
    known = cast(list[int], facts.value(fact_id))
    is_cut = facts.integer("rows.num_rows") > len(known)
    num_beyond = max(0, num_rows - len(known)) if is_cut else 0
    return [*known[:num_rows], *[known[-1]] * num_beyond]
