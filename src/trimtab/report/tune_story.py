"""A finished search in sentences."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.hyperparameters.writing import yaml_value
from trimtab.report.words import counted, float_text, seconds_text
from trimtab.search.ranges import range_around
from trimtab.search.record import TuneResult


def headline(result: TuneResult) -> str:
    """What is taken and why; how the next plan comes by it."""
    sentence = result.verdict[0].upper() + result.verdict[1:]
    if result.best is None:
        return f"{sentence}."
    train = f"Train with it by: {_options_text(result.options or result.values)}"
    if not result.facts_kept:
        because = "" if result.not_kept is None else f": {result.not_kept}"
        return f"{sentence}. Not remembered for `auto`{because}. {train}"
    if result.names == ("learning_rate",):
        return f"{sentence}. The next plan of this model, data and method takes it for `auto`."
    return f"{sentence}. {train}"


def _options_text(options: Mapping[str, Any]) -> str:
    """As words of a command line."""
    return " ".join(
        f"--{name.replace('_', '-')} {shlex.quote(_option_text(value))}"
        for name, value in options.items()
    )


def _option_text(value: Any) -> str:
    """As a reader would write it, where that is the same value."""
    is_number = isinstance(value, int | float)
    text = float_text(value) if is_number else ""
    is_same = is_number and "," not in text and float(text) == value
    return text if is_same else yaml_value(value)


def plateau_sentence(result: TuneResult) -> str:
    """What is equal to the lowest loss, and where that lies; empty where every run diverged."""
    parts = []
    for name, (low, high) in result.plateau.items():
        if low < high:
            parts.append(f"{name} from {float_text(low)} to {float_text(high)}")
        else:
            parts.append(f"no other {name} than {float_text(low)}")
    if not parts:
        return ""
    tested = f"by a paired test on {result.num_search_rows} rows"
    sentence = (
        f"Equal to the lowest loss within noise, {tested}: "
        f"{'; '.join(parts)}{', each with any of the others' if len(parts) > 1 else ''}."
    )
    regions = [
        f"{name} in {float_text(low)} to {float_text(high)}"
        for name, (low, high) in result.region.items()
        if low > min(_tried(result, name)) or high < max(_tried(result, name))
    ]
    if regions:
        sentence += f" By the fitted curve the best lies, at 90%, with {'; '.join(regions)}."
    return " ".join([sentence, *_edges(result)])


def _edges(result: TuneResult) -> Iterator[str]:
    """Where the best is an end of what was run, what lies beyond was not looked at.

    Nothing lies below 0.
    """
    assert result.best is not None
    for name, value in result.best.items():
        tried = _tried(result, name)
        if value == 0 or min(tried) == max(tried) or value not in {min(tried), max(tried)}:
            continue
        is_largest = value == max(tried)
        end, beyond = ("largest", "above") if is_largest else ("smallest", "below")
        low, high = range_around(name, value)
        if high > value if is_largest else low < value:
            option = f"--{name.replace('_', '-')} {float_text(value)}"
            look = f"a search from {option} would look there"
        else:
            look = "`trimtab study` compares values that no search looks at"
        yield (
            f"{name} {float_text(value)} is the {end} that was run: a better one may lie {beyond}, "
            f"and {look}."
        )


def _tried(result: TuneResult, name: str) -> list[float]:
    return [run.values[name] for run in result.runs if not run.is_short]


def horizon_sentence(result: TuneResult) -> str:
    horizon = result.horizon
    if horizon is None:
        return (
            f"Found in runs of {counted(result.num_steps, 'update')}, where the planned run has "
            f"{result.run_num_steps:,}; how the best value moves with the length was not measured."
            if result.num_steps < result.run_num_steps
            else ""
        )
    told = (
        f"The best learning rate moves with the length of a run to the power of "
        f"{horizon.exponent:+.2f} (90% interval {horizon.low:+.2f} to {horizon.high:+.2f}, from "
        f"runs of {horizon.short_num_steps} and {horizon.num_steps} updates)"
    )
    if horizon.is_identified:
        return (
            f"{told}; where it is moved, it is moved by the end nearer to 0, and no further than "
            "was run."
        )
    return f"{told}: unidentified, and not used."


def cost_sentence(result: TuneResult) -> str:
    cost = result.cost
    return (
        f"Cost: {cost.num_tokens:,} tokens trained and {cost.num_eval_tokens:,} scored, "
        f"{100 * cost.share_of_run:.0f}% of the planned run's tokens, in "
        f"{seconds_text(cost.seconds)}."
    )


def limits_sentence(result: TuneResult) -> str:
    return (
        f"Every run has the seed {result.seed}: intervals are over rows, and what another seed "
        "would change is not in them."
    )
