"""Which rows are held out of training."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from trimtab.errors import ConfigError
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.fact import Facts
from trimtab.planning.rules.ruling import Ruling, counted, decision, where_set

AUTO_FRACTION = 0.05
MIN_AUTO_ROWS = 16
MAX_AUTO_ROWS = 512


@dataclass(frozen=True, slots=True)
class HoldOut:
    """`dataset` is a path, or "" where `num_eval_rows` are taken out of the training rows."""

    value: float | str
    num_eval_rows: int
    dataset: str
    because: str


def choose_hold_out(resolved: ResolvedConfig, facts: Facts) -> HoldOut:
    """Raises ConfigError where the fraction leaves nothing to train on or to hold out."""
    asked = resolved.config.eval_dataset
    num_rows = facts.integer("data.num_rows")
    if asked == "none":
        return HoldOut("none", 0, "", "nothing is held out")
    if asked == "auto":
        return _auto(resolved, num_rows, num_rows - facts.integer("data.num_duplicate_rows"))
    if isinstance(asked, str):
        num_eval_rows = facts.integer("data.eval_num_rows")
        return HoldOut(asked, num_eval_rows, asked, f"{counted(num_eval_rows, 'row')} of their own")
    num_eval_rows = round(Fraction(str(asked)) * num_rows)
    if not 0 < num_eval_rows < num_rows:
        raise ConfigError(
            f"eval_dataset {asked} of {counted(num_rows, 'row')} is {num_eval_rows:,} rows.",
            where=where_set(resolved, "eval_dataset"),
            hint="Set another fraction, a path or `none`.",
        )
    because = f"{num_eval_rows:,} of {num_rows:,} rows, drawn by data_seed"
    return HoldOut(asked, num_eval_rows, "", because)


def decide_hold_out(resolved: ResolvedConfig, facts: Facts) -> Ruling:
    """`eval_dataset`. Needs the facts of the rows that are left. Raises ConfigError."""
    chosen = choose_hold_out(resolved, facts)
    decided = decision(
        resolved,
        "eval_dataset",
        chosen.value,
        "rule",
        chosen.because,
        facts=("data.num_rows", "data.num_duplicate_rows"),
        limits="the held-out loss is as sure as the number of its rows",
    )
    warnings = (*_unused_warnings(resolved, chosen), *_warnings(facts, chosen.num_eval_rows))
    return Ruling((decided,), warnings)


def _unused_warnings(resolved: ResolvedConfig, chosen: HoldOut) -> tuple[str, ...]:
    if resolved.config.eval_strategy != "no" or not chosen.num_eval_rows:
        return ()
    rows = counted(chosen.num_eval_rows, "row")
    kept = "" if chosen.dataset else " and not trained on"
    return (f"eval_dataset: its {rows} are never scored{kept}, since eval_strategy is no.",)


def _warnings(facts: Facts, num_eval_rows: int) -> tuple[str, ...]:
    warnings = []
    num_copies = facts.integer("rows.num_copies_removed")
    if num_copies:
        warnings.append(f"Copies of held-out rows: {num_copies:,}; they are left out of training.")
    num_truncated = facts.integer("rows.eval_num_truncated")
    if num_truncated:
        warnings.append(
            f"Held-out rows longer than max_length: {num_truncated:,} of {num_eval_rows:,}; they "
            "are scored up to there."
        )
    num_dropped = facts.integer("rows.eval_num_dropped")
    if num_dropped:
        warnings.append(
            f"Held-out rows without a token to score within max_length: {num_dropped:,} of "
            f"{num_eval_rows:,}; they are left out."
        )
    return tuple(warnings)


def _auto(resolved: ResolvedConfig, num_rows: int, num_distinct: int) -> HoldOut:
    if resolved.config.eval_strategy == "no":
        return HoldOut("none", 0, "", "eval_strategy is no, so held-out rows would serve nothing")
    share = round(AUTO_FRACTION * num_rows)
    num_eval_rows = min(max(share, MIN_AUTO_ROWS), MAX_AUTO_ROWS)
    # Copies of held-out rows are not trained on, so that these could take as many others along.
    if num_distinct - num_eval_rows < num_eval_rows:
        told = counted(num_rows, "row")
        if num_distinct < num_rows:
            told += f", {num_distinct:,} of them distinct"
        because = f"{told}: holding out {num_eval_rows} would leave fewer to train on"
        return HoldOut("none", 0, "", because)
    because = f"{num_eval_rows:,} of {num_rows:,} rows, drawn by data_seed"
    if num_eval_rows != share:
        bound = "the least" if num_eval_rows == MIN_AUTO_ROWS else "the most"
        because += f"; 5% would be {share:,}, {bound} is {num_eval_rows}"
    return HoldOut(_fraction(num_eval_rows, num_rows), num_eval_rows, "", because)


def _fraction(num_eval_rows: int, num_rows: int) -> float:
    """The shortest decimal that holds out just so many rows when it is set by hand."""
    for digits in range(2, 12):
        fraction = round(num_eval_rows / num_rows, digits)
        if round(Fraction(str(fraction)) * num_rows) == num_eval_rows:
            return fraction
    raise AssertionError(f"no fraction gives {num_eval_rows} of {num_rows} rows")
