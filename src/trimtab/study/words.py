"""Verdicts in words."""

from __future__ import annotations

from typing import Any

from trimtab.hyperparameters.writing import yaml_value
from trimtab.planning.rules.ruling import counted
from trimtab.study.result import ArmResult, StudyResult


def told_value(value: Any) -> str:
    """As a configuration would hold it, short."""
    is_float = isinstance(value, float)
    return f"{value:g}" if is_float else yaml_value(value).strip('"')


def duration_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def signed_nats(nats: float) -> str:
    return f"{nats:+.4f}" if abs(nats) >= 5e-5 or nats == 0 else f"{nats:+.1e}"


def signed_share(share: float) -> str:
    return f"{100 * share:+.2f}%" if abs(share) >= 5e-5 or share == 0 else f"{100 * share:+.0e}%"


def effect_text(arm: ArmResult) -> str:
    """`−0.0123 nats (−0.61%)`; empty where there is none."""
    comparison = arm.comparison
    if comparison is None or comparison.effect_nats is None:
        return ""
    share = comparison.effect_share
    told = "" if share is None else f" ({signed_share(share)})"
    return f"{signed_nats(comparison.effect_nats)} nats{told}"


def interval_text(arm: ArmResult) -> str:
    """`−0.0150 to −0.0090`; empty where there is none."""
    comparison = arm.comparison
    if comparison is None or comparison.interval is None:
        return ""
    low, high = comparison.interval
    return f"{signed_nats(low)} to {signed_nats(high)}"


def way_on(arm: ArmResult) -> str:
    """What would settle an undecided arm; empty where it is settled."""
    comparison = arm.comparison
    if comparison is None or comparison.verdict != "undecided":
        return ""
    if comparison.num_pairs < 2:
        return "take more seeds: --seeds 3"
    if comparison.more_seeds is not None:
        return f"about {counted(comparison.more_seeds, 'more seed')} would settle it"
    if comparison.interval is not None:
        return "over 100 seeds would be needed to settle it"
    if comparison.effect_nats is not None:
        return ""
    return "why runs came to no loss decides, and more seeds do not tell it"


def reason_text(arm: ArmResult) -> str:
    """Why the verdict is what it is, with what would settle it, and why runs came to no loss."""
    if arm.comparison is None:
        return "the reference"
    failures = dict.fromkeys(each for each in arm.failures if each is not None)
    parts = (arm.comparison.because, *failures, way_on(arm))
    return "; ".join(part for part in parts if part)


def caveats(result: StudyResult) -> tuple[str, ...]:
    """What a reader of the verdicts must know."""
    told = []
    if result.rate_may_move and not result.is_retuned:
        told.append(
            f"The best learning rate may depend on {result.name}, and it was not retuned for each "
            "value: --retune does."
        )
    if result.moved_along:
        along = "; ".join(
            f"{name} {', '.join(map(told_value, values))}"
            for name, values in result.moved_along.items()
        )
        told.append(f"Not held: {along} followed from the values of {result.name}.")
    edges = [told_value(arm.value) for arm in result.arms if arm.rate_at_edge]
    if edges:
        told.append(
            f"The learning rate that was found for {', '.join(edges)} is an end of what was tried: "
            "a better one may lie beyond it."
        )
    if result.earlier_seeds:
        earlier = ", ".join(f"{number}" for number in result.earlier_seeds)
        told.append(
            f"Verdicts were read over {earlier} seeds before. One look at a number of seeds that "
            "was settled beforehand calls what does not differ better or worse in 5% of studies; "
            "several looks do in more."
        )
    num_compared = len(result.arms) - 1
    if num_compared > 1:
        told.append(
            f"The intervals of the {num_compared} comparisons hold together at 95% (Bonferroni)."
        )
    return tuple(told)


def steps_text(result: StudyResult) -> str:
    """`40 updates`, or `20 to 40 updates` where the arms' runs differ."""
    fewest, most = result.num_steps
    return counted(most, "update") if fewest == most else f"{fewest:,} to {most:,} updates"


def study_sentence(result: StudyResult) -> str:
    """The whole study in one sentence, for a plan to show."""
    reference = told_value(result.arms[0].value)
    parts = []
    for arm in result.arms[1:]:
        effect = effect_text(arm)
        figures = f" by {effect}" if effect and arm.verdict in {"better", "worse"} else ""
        shown = f" ({effect})" if effect and not figures else ""
        verdict = {"equivalent": "equivalent to", "undecided": "undecided against"}.get(
            str(arm.verdict), f"{arm.verdict} than"
        )
        parts.append(f"{told_value(arm.value)} {verdict} {reference}{figures}{shown}")
    length = f"{counted(len(result.seeds), 'seed')} of {steps_text(result)}"
    retuned = ""
    if result.is_retuned:
        retuned = ", each at a learning rate that was searched for it"
    elif result.rate_may_move:
        retuned = ", not retuned"
    return f"a study here found {', '.join(parts)} in {length}{retuned}"
