"""What files alone say of the model and the rows: facts that a quick plan rests on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from trimtab.data.estimates import EstimatedCorpus
from trimtab.planning.fact import Fact, FactValue

KNOWN_WITHOUT_COUNTING = frozenset(
    {"data.format", "data.format_because", "data.templated", "data.template_because"}
)


def model_facts(facts: Iterable[Fact]) -> Iterator[Fact]:
    """Facts of `ModelQuestion`, whose counts were read off files, marked as such."""
    for fact in facts:
        match fact.id:
            case "model.packing_refusal":
                yield replace(fact, method="not checked", cost_s=0.0)
            case "model.pad_token" | "model.pad_token_id" | "model.pad_token_because":
                yield fact
            case _:
                yield replace(fact, method="read from config.json and the headers of the weights")


def corpus_facts(facts: Iterable[Fact], estimated: EstimatedCorpus) -> Iterator[Fact]:
    """Facts of `DataQuestion` for all rows, from those of the rows that stand for them."""
    counts = {"data.num_rows": estimated.num_rows, "data.num_bad_rows": estimated.num_bad_rows}
    is_exact = estimated.num_tokenised == estimated.num_rows
    for fact in facts:
        value = fact.value
        if fact.id in counts:
            value = counts[fact.id]
        elif fact.id in {"data.num_tokens", "data.num_trainable_tokens"}:
            value = _scaled(value, estimated.rows_each_stands_for)
        elif fact.id == "data.truncation":
            value = _scaled_cuts(value, estimated.rows_each_stands_for)
        if is_exact or fact.id in KNOWN_WITHOUT_COUNTING:
            yield replace(fact, value=value)
        elif fact.id in {"data.num_tokens", "data.num_trainable_tokens"}:
            yield _with_interval(replace(fact, value=value), estimated)
        elif fact.id == "data.num_rows":
            yield replace(fact, value=value, method="rows counted, those that are bad estimated")
        else:
            yield replace(fact, value=value, method=told(estimated))


def rows_facts(
    facts: Iterable[Fact],
    estimated: EstimatedCorpus,
    estimated_eval: EstimatedCorpus,
    *,
    packing: bool,
) -> Iterator[Fact]:
    """Facts of `TrainingRowsQuestion`, without the digest of tokens that are not all known.

    `estimated_eval` is the corpus that the held-out rows come from. How many packed rows there are
    is as sure as how many tokens.
    """
    for fact in facts:
        if fact.id == "rows.digest":
            continue
        value = fact.value
        if fact.id.startswith("rows.num_"):
            value = _scaled(value, estimated.rows_each_stands_for)
        elif fact.id.startswith("rows.eval_num_"):
            value = _scaled(value, estimated_eval.rows_each_stands_for)
        found = replace(fact, value=value, method=told(estimated))
        is_packed_rows = packing and fact.id == "rows.num_rows"
        is_total = fact.id in {"rows.num_tokens", "rows.num_trainable_tokens"} or is_packed_rows
        yield _with_interval(found, estimated) if is_total else found


def _with_interval(fact: Fact, estimated: EstimatedCorpus) -> Fact:
    """A total with half of its 95% interval, which what is cut of the rows makes no wider."""
    margin = _margin(fact, estimated)
    if margin == 0:
        return fact
    method = f"{told(estimated)}; spread: half of the 95% interval"
    return replace(fact, spread=margin, method=method)


def _margin(fact: Fact, estimated: EstimatedCorpus) -> float:
    if fact.id.endswith("trainable_tokens"):
        return estimated.num_trainable_margin
    if fact.id.endswith("num_tokens"):
        return estimated.num_tokens_margin
    # Packed rows are full but for little, so they vary as the tokens that fill them.
    num_sampled = sum(row.num_tokens for row in estimated.corpus.rows)
    num_tokens = estimated.rows_each_stands_for * num_sampled
    assert isinstance(fact.value, int)
    return estimated.num_tokens_margin / num_tokens * fact.value


def told(estimated: EstimatedCorpus) -> str:
    """How sure the figures are, in words."""
    if estimated.num_tokenised == estimated.num_rows:
        return f"arithmetic on {estimated.num_rows:,} tokenised rows"
    return f"estimated from {estimated.num_tokenised:,} of {estimated.num_rows:,} rows"


def _scaled_cuts(cuts: FactValue, factor: float) -> list[list[int]]:
    """Each a length, which stays, and counts at it."""
    assert isinstance(cuts, list)
    return [[length, *(_scaled(count, factor) for count in counts)] for length, *counts in cuts]


def _scaled(value: FactValue, factor: float) -> int:
    assert isinstance(value, int)
    return round(value * factor)
