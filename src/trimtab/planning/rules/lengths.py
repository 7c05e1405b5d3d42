"""How long rows may be, and how they are laid out in a micro-batch."""

from __future__ import annotations

import math
from typing import cast

from trimtab.errors import ConfigError
from trimtab.hyperparameters.config import Padding
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Alternative, Decision, Origin
from trimtab.planning.fact import Facts
from trimtab.planning.rules.hold_out import choose_hold_out
from trimtab.planning.rules.ruling import Ruling, counted, counted_rows, decision, where_set

OUTLIER_RATIO = 1.25
"""A longest row beyond this multiple of the 99.5th percentile sets nothing."""
LENGTH_MULTIPLE = 64
_NEARLY_ALL = 199
"""The index of the 99.5th percentile among the 201 quantiles."""
MIN_ROWS_FOR_PERCENTILE = 201


def check_layout(resolved: ResolvedConfig) -> None:
    """Raises ConfigError where packing is asked for together with padded rows."""
    config = resolved.config
    if config.packing and resolved.is_set("padding") and config.padding != "none":
        raise ConfigError(
            f"packing: true and padding: {config.padding} exclude each other: a packed row is "
            "filled with examples and has no pad token.",
            where=where_set(resolved, "padding"),
            hint="Keep one of the two.",
        )


def choose_max_length(resolved: ResolvedConfig, facts: Facts) -> int:
    """Tokens. Raises ConfigError where the asked length is over the model's positions."""
    asked = resolved.config.max_length
    positions = _positions(facts)
    if asked == "auto":
        base = _nearly_all(facts) if _has_outlier(facts) else facts.integer("data.length_max")
        return _within(_round_up(base), positions)
    if positions is not None and asked > positions:
        raise ConfigError(
            f"max_length {asked:,} is over the {positions:,} positions of the model.",
            where=where_set(resolved, "max_length"),
            hint=f"Set it to at most {positions}, or to auto.",
        )
    return asked


def choose_packing(resolved: ResolvedConfig, facts: Facts) -> bool:
    """Raises ConfigError where the model's documents cannot be kept apart."""
    refusal = facts.value("model.packing_refusal")
    if resolved.config.packing and refusal is not None:
        raise ConfigError(
            f"packing: true cannot be had: {refusal}.",
            where=where_set(resolved, "packing"),
            hint="Set `packing: false`; rows are then padded.",
        )
    return resolved.config.packing


def choose_padding(resolved: ResolvedConfig, facts: Facts) -> Padding:
    """`none` becomes `longest` where joined rows would see each other."""
    padding = resolved.config.padding
    if padding == "none" and facts.value("model.packing_refusal") is not None:
        return "longest"
    return padding


def decide_lengths(resolved: ResolvedConfig, facts: Facts) -> Ruling:
    """`max_length`, `truncation_mode`, `packing`, `padding`, `padding_side`, `pad_to_multiple_of`.

    Needs the facts of the rows under these lengths. Raises ConfigError.
    """
    padding, padding_warnings = _padding(resolved, facts)
    return Ruling(
        (
            _max_length(resolved, facts),
            _truncation_mode(resolved, facts),
            _packing(resolved, facts),
            padding,
            *_padded_layout(resolved, padding.value),
        ),
        warnings=(
            *padding_warnings,
            *_unused_warnings(resolved, padding.value),
            *_cut_warnings(resolved, facts),
        ),
    )


def _positions(facts: Facts) -> int | None:
    """The model's bound on a row's length; None where its architecture has none."""
    if facts.value("model.max_position_embeddings") is None:
        return None
    return facts.integer("model.max_position_embeddings")


def _within(length: int, positions: int | None) -> int:
    return length if positions is None else min(length, positions)


def _nearly_all(facts: Facts) -> int:
    """The 99.5th percentile; of fewer rows than it can tell apart, the second longest row.

    Rows of equal length count one by one. The quantiles are row lengths, the next longer one where
    the quantile falls between two, so the second longest row of n is the last that lies at or under
    (n - 2) ÷ (n - 1).
    """
    quantiles = cast(list[float], facts.value("data.length_quantiles"))
    num_rows = facts.integer("data.num_rows")
    if num_rows == 1:
        return math.ceil(quantiles[-1])
    second_longest = (len(quantiles) - 1) * (num_rows - 2) // (num_rows - 1)
    return math.ceil(quantiles[min(_NEARLY_ALL, second_longest)])


def _has_percentile(facts: Facts) -> bool:
    """Is the 99.5th percentile another row than the longest?"""
    return facts.integer("data.num_rows") >= MIN_ROWS_FOR_PERCENTILE


def _nearly_all_named(facts: Facts) -> str:
    if _has_percentile(facts):
        return f"the 99.5th percentile is {_nearly_all(facts):,} tokens"
    return f"the second longest row is {_nearly_all(facts):,} tokens"


def _has_outlier(facts: Facts) -> bool:
    return facts.integer("data.length_max") > OUTLIER_RATIO * _nearly_all(facts)


def _round_up(length: int) -> int:
    return math.ceil(length / LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def _num_train_rows(resolved: ResolvedConfig, facts: Facts) -> int:
    """Rows to train on before any is cut or dropped; copies of held-out rows are none of them."""
    held_out = choose_hold_out(resolved, facts)
    num_taken = 0 if held_out.dataset else held_out.num_eval_rows
    return facts.integer("data.num_rows") - num_taken - facts.integer("rows.num_copies_removed")


def _num_dropped_as_too_long(facts: Facts) -> int:
    return facts.integer("rows.num_dropped") - facts.integer("rows.num_left_without_target")


def _num_too_long(facts: Facts) -> int:
    """Rows left without a target were cut before, and are counted there."""
    return facts.integer("rows.num_truncated") + _num_dropped_as_too_long(facts)


def _max_length(resolved: ResolvedConfig, facts: Facts) -> Decision:
    value = choose_max_length(resolved, facts)
    longest, nearly_all = facts.integer("data.length_max"), _nearly_all(facts)
    consequence = (
        f"{_num_too_long(facts):,} of {_num_train_rows(resolved, facts):,} rows are longer"
    )
    alternatives: tuple[Alternative, ...] = ()
    if resolved.config.max_length != "auto":
        because = f"the longest row is {longest:,} tokens; {consequence}"
    elif value < _round_up(nearly_all if _has_outlier(facts) else longest):
        because = f"the model has {value:,} positions, the longest row {longest:,} tokens"
        because += f"; {consequence}"
    elif _has_outlier(facts):
        because = (
            f"{_nearly_all_named(facts)}, rounded up to 64; the longest row, {longest:,}, is an "
            f"outlier and sets nothing; {consequence}"
        )
        alternatives = (
            Alternative(
                _within(_round_up(longest), _positions(facts)),
                f"would keep every row for {longest / nearly_all:.1f}× the length that nearly all "
                "rows need",
            ),
        )
    else:
        because = f"the longest row is {longest:,} tokens, rounded up to 64; {consequence}"
        if _round_up(nearly_all) < value:
            cut = "at most 0.5% of the rows" if _has_percentile(facts) else "the longest row"
            alternatives = (Alternative(_round_up(nearly_all), f"would cut {cut}"),)
    origin: Origin = "measured"
    counting = facts.by_id["data.length_max"].method
    if counting.startswith("estimated"):
        origin, because = "rule", f"{because}; {counting}"
    return decision(
        resolved,
        "max_length",
        value,
        origin,
        because,
        facts=("data.length_max", "data.length_quantiles", "model.max_position_embeddings"),
        alternatives=alternatives,
    )


def _truncation_mode(resolved: ResolvedConfig, facts: Facts) -> Decision:
    mode = resolved.config.truncation_mode
    done = {
        "keep_start": "their end is cut",
        "drop": "they are dropped",
        "split": "they are split",
        "error": "the run stops",
    }[mode]
    num_too_long = _num_too_long(facts)
    because = "no row is longer than max_length"
    if num_too_long:
        because = f"{counted(num_too_long, 'row')} over max_length: {done}"
    ids = ("rows.num_truncated", "rows.num_dropped")
    return decision(resolved, "truncation_mode", mode, "default", because, facts=ids)


def _padded_layout(resolved: ResolvedConfig, padding: Padding) -> tuple[Decision, ...]:
    multiple = resolved.config.pad_to_multiple_of
    side_because = "the loss is the same on both sides"
    multiple_because = "lengths are padded as they are"
    if multiple is not None:
        multiple_because = "padded lengths are rounded up to it"
    if padding == "none":
        side_because = multiple_because = "not used: nothing is padded"
    return (
        decision(resolved, "padding_side", resolved.config.padding_side, "default", side_because),
        decision(resolved, "pad_to_multiple_of", multiple, "default", multiple_because),
    )


def _packing(resolved: ResolvedConfig, facts: Facts) -> Decision:
    packing = choose_packing(resolved, facts)
    num_examples, num_rows = facts.integer("rows.num_examples"), facts.integer("rows.num_rows")
    if packing:
        because = (
            f"{num_examples:,} examples fill {counted(num_rows, 'row')}, "
            f"{num_examples / num_rows:.1f} each"
        )
    else:
        because = "batches count examples"
    return decision(
        resolved,
        "packing",
        packing,
        "default",
        because,
        facts=("rows.num_examples", "rows.num_rows"),
    )


def _padding(resolved: ResolvedConfig, facts: Facts) -> tuple[Decision, tuple[str, ...]]:
    padding = choose_padding(resolved, facts)
    if padding != resolved.config.padding:
        refusal = facts.value("model.packing_refusal")
        because = f"rows cannot be joined end to end: {refusal}"
        changed = Decision("padding", padding, "measured", because, ("model.packing_refusal",))
        asked = resolved.is_set("padding")
        warning = f"padding: none cannot be had and is `longest` instead: {refusal}."
        return changed, (warning,) if asked else ()
    told = {
        "none": "rows lie end to end, so no pad token is computed",
        "longest": "padded to the longest row of each micro-batch",
        "max_length": "padded to max_length",
    }[padding]
    return decision(resolved, "padding", padding, "default", told), ()


def _unused_warnings(resolved: ResolvedConfig, padding: Padding) -> tuple[str, ...]:
    if padding != "none":
        return ()
    return tuple(
        f"{name} has no effect: no pad token is computed under padding: none."
        for name in ("padding_side", "pad_to_multiple_of")
        if resolved.is_set(name)
    )


def _sample_warnings(facts: Facts) -> tuple[str, ...]:
    """How sure token counts are where only some of the rows were tokenised."""
    total = facts.by_id["data.num_tokens"]
    if total.spread is None:
        return ()
    num_tokens = facts.integer("data.num_tokens")
    if facts.by_id["rows.num_rows"].spread is None:
        updates = "Updates an epoch are of all rows that were understood"
    else:
        updates = (
            f"So are packed rows: {counted_rows(facts)}, and updates an epoch are as sure as that"
        )
    return (
        f"Tokens are counted in a sample: {num_tokens:,} in all, ± {total.spread / num_tokens:.2%} "
        f"(95%). {updates}; a row in which nothing can be trained on is met before its own update.",
    )


def _cut_warnings(resolved: ResolvedConfig, facts: Facts) -> tuple[str, ...]:
    warnings = [*_sample_warnings(facts)]
    num_rows = _num_train_rows(resolved, facts)
    num_truncated = facts.integer("rows.num_truncated")
    mode = resolved.config.truncation_mode
    is_split = mode == "split"
    if num_truncated:
        too_long = f"{num_truncated:,} of {num_rows:,} rows are longer than max_length"
        if mode == "error":
            return (*warnings, f"An estimated {too_long}; a single one stops the run.")
        lost = counted(facts.integer("rows.num_tokens_cut"), "token")
        trainable = facts.integer("rows.num_trainable_tokens_cut")
        if is_split:
            told = (
                f"split: {lost} lost, {trainable:,} no longer trained on since each begins a piece"
            )
        else:
            told = f"cut: {lost} lost, {trainable:,} of them trained on"
        warnings.append(f"{too_long} and are {told}.")
    num_losing = facts.integer("rows.num_rows_losing_targets")
    if num_losing:
        done, effect = "cut", "the model is not shown how these end"
        if is_split:
            done, effect = "split", "their later pieces lack what stood before"
        warnings.append(
            f"Rows {done} within what is trained on: {num_losing:,} of {num_rows:,}; {effect}."
        )
    num_without_target = facts.integer("rows.num_left_without_target")
    if num_without_target:
        what = "Pieces of split rows" if is_split else "Rows"
        warnings.append(
            f"{what} that keep no token to train on within max_length: {num_without_target:,}; "
            "they are dropped."
        )
    num_dropped = _num_dropped_as_too_long(facts)
    if num_dropped:
        warnings.append(
            f"{num_dropped:,} of {num_rows:,} rows are longer than max_length and are dropped."
        )
    return tuple(warnings)
