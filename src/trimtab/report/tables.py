"""The page's tables: what was asked, what was decided, and the data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trimtab.hyperparameters.catalogue import catalogue
from trimtab.planning.decision import Decision
from trimtab.planning.plan import Plan
from trimtab.report.collect import RunRecord
from trimtab.report.story import Figure
from trimtab.report.words import bytes_text, counted, share_text, value_text


@dataclass(frozen=True, slots=True)
class Family:
    """Decisions of one family of the catalogue, in the plan's order."""

    name: str
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A line of config.yaml: what was set and in which layer, or `lost` where it was overruled."""

    name: str
    value: str
    layer: str
    lost: bool = False


def families(plan: Plan) -> tuple[Family, ...]:
    """The plan's decisions by family."""
    grouped: dict[str, list[Decision]] = {}
    for decision in plan.decisions:
        grouped.setdefault(_family(decision), []).append(decision)
    return tuple(Family(name, tuple(decisions)) for name, decisions in grouped.items())


def meaning(name: str) -> str:
    """What a hyperparameter is; empty for one that this version does not know."""
    return catalogue()[name].declaration.meaning if name in catalogue() else ""


_OVERRULED = re.compile(r"# overruled: (\w+): (.*)  # (.*)")
_SET = re.compile(r"(\w+): (.*)  # (.*)")


def asked(config_yaml: str) -> tuple[Asked, ...]:
    """What the user set, from the run's config.yaml."""
    found = []
    for line in config_yaml.splitlines():
        if match := _OVERRULED.fullmatch(line):
            found.append(Asked(match[1], match[2], match[3], lost=True))
        elif match := _SET.fullmatch(line):
            found.append(Asked(match[1], match[2], match[3]))
        elif line.strip():
            name, _, value = line.partition(":")
            found.append(Asked(name, value.strip(), ""))
    return tuple(found)


def data_figures(record: RunRecord) -> Iterator[Figure]:
    """The counts of the data, with the shares that a reader would work out."""
    data = record.data
    if data is None:
        return
    yield Figure("Rows read", f"{data.num_rows:,}", f"format {data.format}")
    yield Figure("Trained on", counted(data.num_train_examples, "row"))
    yield Figure("Held out", counted(data.num_eval_examples, "row"))
    share = f"{share_text(data.num_trainable_tokens, data.num_tokens)} of them trained on"
    if data.num_tokenised is not None:
        share += f"; estimated from {counted(data.num_tokenised, 'row')}"
    yield Figure("Tokens", f"{data.num_tokens:,}", share)
    if data.num_bad_rows:
        yield Figure("Unusable rows", f"{data.num_bad_rows:,}", "left out")
    if data.num_duplicate_rows:
        yield Figure("Repeated rows", f"{data.num_duplicate_rows:,}", "their tokens occur before")
    if data.num_duplicates_of_held_out:
        yield Figure(
            "Equal to held-out rows", f"{data.num_duplicates_of_held_out:,}", "not trained on"
        )


def truncation_sentence(record: RunRecord) -> str:
    """What `max_length` cost; that it cost nothing is said too."""
    data = record.data
    if data is None:
        return ""
    if not data.num_truncated and not data.num_dropped:
        return "No row was cut or dropped for its length."
    parts = []
    if data.num_truncated:
        lost = share_text(
            data.num_trainable_tokens_cut,
            data.num_trainable_tokens_cut + data.num_trainable_tokens,
        )
        parts.append(
            f"{counted(data.num_truncated, 'row')} cut: {counted(data.num_tokens_cut, 'token')} "
            f"gone, {data.num_trainable_tokens_cut:,} fewer to be learned ({lost} of all such)."
        )
    if data.num_dropped:
        parts.append(f"{counted(data.num_dropped, 'row')} dropped.")
    return " ".join(parts)


def samples_sentence(record: RunRecord) -> str:
    """Where the prompts come from; answers to rows that were trained on prove less."""
    is_held_out = record.data is not None and record.data.num_eval_examples > 0
    rows = "held-out prompts" if is_held_out else "prompts of rows that it was trained on"
    return f"What the model answers to {rows}, always taking the likeliest token."


def decided_value(name: str, value: Any) -> str:
    """A hyperparameter's value as a configuration would hold it; bytes as a reader says them."""
    if isinstance(value, int) and not isinstance(value, bool):
        is_bytes = name in catalogue() and catalogue()[name].declaration.unit == "bytes"
        return bytes_text(value) if is_bytes else str(value)
    return value_text(value)


def _family(decision: Decision) -> str:
    entry = catalogue().get(decision.name)
    return "other" if entry is None else entry.declaration.family
