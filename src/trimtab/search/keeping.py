"""What a finished search leaves for the next plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.hyperparameters.catalogue import catalogue
from trimtab.planning.fact import Fact
from trimtab.planning.questions import tuned_key
from trimtab.planning.settings import Settings
from trimtab.search.judging import Judged
from trimtab.search.record import Cost

WARMUP = "warmup_ratio"
_OTHER_WARMUP = "these values want the warmup found here, and a plan decides it by its own rule"


def reason_not_to_keep(judged: Judged, chosen: Mapping[str, Any] | None) -> str | None:
    """Why the next plan should not take what was found as measured; None where it should.

    What the plan had is measured to be good only where something else is shown to be worse: else
    a start that nobody could tell from the rest would be handed on as the best. A rate that was
    found with another warmup than a plan's would be taken without it.
    """
    best = judged.best
    if best is None:
        return "every run diverged"
    if chosen is not None:
        return _OTHER_WARMUP if _has_other_warmup(judged, chosen) else None
    if best != judged.start:
        return "no value is shown to be better than the plan's own"
    if not judged.is_told_apart(best):
        return "no other run can be told from the plan's own"
    return None


def _has_other_warmup(judged: Judged, chosen: Mapping[str, Any]) -> bool:
    start = judged.start
    return start is not None and chosen.get(WARMUP) != start.overrides.get(WARMUP)


def tuned_facts(
    settings: Settings,
    values: Mapping[str, Any],
    lines: Mapping[str, tuple[float, float] | None],
    because: str,
    cost: Cost,
) -> list[Fact]:
    """Facts of the values that were taken; `settings` are those of a run with them.

    lines: by name, the ends of what is equal to the lowest with all else as taken. One that does
    not hold its value is left out.
    """
    method = "runs of the configuration, shorter and annealed; paired on held-out rows"
    facts = [
        Fact("tuned.key", tuned_key(settings), method=method, cost_s=cost.seconds),
    ]
    for name, value in values.items():
        unit = catalogue()[name].declaration.unit
        facts.append(Fact(f"tuned.{name}", value, unit, method=method))
        facts.append(Fact(f"tuned.{name}.because", because, method=method))
        low, high = lines.get(name) or (value, value)
        if low <= value <= high and low < high:
            facts.append(Fact(f"tuned.{name}.low", low, unit, method=method))
            facts.append(Fact(f"tuned.{name}.high", high, unit, method=method))
    return facts
