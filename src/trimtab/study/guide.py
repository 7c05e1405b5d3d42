"""Try the guide's claims on one's own model and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.engine.observer import Observer
from trimtab.errors import TrimtabError
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.rules.ruling import counted
from trimtab.runs.atomic import write_json
from trimtab.study.claims import (
    ABOUT_40_PERCENT,
    CLAIMS,
    MARGINS,
    Claim,
    Outcome,
    Quantity,
    values_of,
)
from trimtab.study.design import MOVES_BEST_RATE
from trimtab.study.guide_result import ClaimResult, GuideResult
from trimtab.study.statistics import Comparison, compare
from trimtab.study.studying import Opened, Wanted, opened_study, paired_runs, tell_runs
from trimtab.study.trials import settings_key
from trimtab.study.words import signed_share, told_value
from trimtab.workflow.trial_runs import TrialOrder, TrialRun

ABOUT = "guide"


def run_guide(resolved: ResolvedConfig, wanted: Wanted, observer: Observer) -> GuideResult:
    """All runs that the claims take, each made once, then the claims' outcomes.

    Raises Interrupted where a stop is asked for: finished runs are kept, and the same call goes on.
    """
    with opened_study(resolved, ABOUT, wanted.in_process, observer) as opened:
        seeds = opened.seeds(wanted.num_seeds)
        compared = {claim: values_of(claim, opened.bench.plan) for claim in CLAIMS}
        orders, refused = _orders(opened, compared, seeds)
        told = f"{counted(len(CLAIMS), 'claim')} of the guide over {counted(len(seeds), 'seed')}"
        tell_runs(opened, [order for each in orders.values() for order in each], told, observer)
        runs = _runs(opened, {claim: compared[claim] for claim in orders}, seeds)
        results = [
            _untried(claim, values, refused[claim])
            if claim in refused
            else _judged(claim, values, runs[claim], wanted.equivalence_margin)
            for claim, values in compared.items()
        ]
        result = GuideResult(
            folder=str(opened.folder.root),
            claims=tuple(results),
            seeds=seeds,
            num_steps=opened.bench.plan.settings().num_train_steps,
            equivalence_margin=wanted.equivalence_margin,
        )
        write_json(opened.folder.result_json, result.to_json())
        return result


def _orders(
    opened: Opened, compared: Mapping[Claim, tuple[Any, ...]], seeds: Sequence[int]
) -> tuple[dict[Claim, list[TrialOrder]], dict[Claim, str]]:
    """The runs of each claim; and why, of those that cannot be tried here."""
    orders: dict[Claim, list[TrialOrder]] = {}
    refused: dict[Claim, str] = {}
    for claim, values in compared.items():
        if len(set(values)) < len(values):
            refused[claim] = f"the plan has {claim.name} {told_value(values[0])}: nothing differs"
            continue
        if claim.quantity == "peak memory" and opened.trials.in_process:
            refused[claim] = "runs that share a process have no peak memory of their own"
            continue
        try:
            wanted = [
                opened.bench.order({claim.name: value}, seed=seed)
                for seed in seeds
                for value in values
            ]
        except TrimtabError as error:
            refused[claim] = str(error)
            continue
        if len(set(map(settings_key, wanted))) < len(wanted):
            told = " and ".join(map(told_value, values))
            refused[claim] = f"{claim.name} {told} come to the same runs here"
            continue
        orders[claim] = wanted
    return orders, refused


def _runs(
    opened: Opened, compared: Mapping[Claim, tuple[Any, ...]], seeds: Sequence[int]
) -> dict[Claim, list[list[TrialRun]]]:
    """By claim, arm and seed. Of each seed those of claims on time come first, so that what they
    compare is made in a row."""
    found: dict[Claim, list[list[TrialRun]]] = {}
    for seed in seeds:
        for claim in sorted(compared, key=lambda each: each.quantity != "seconds"):
            values = compared[claim]
            moved = [{claim.name: value} for value in values]
            made = paired_runs(opened, moved, values, claim.name, [seed])
            earlier = found.get(claim, [[] for _ in values])
            found[claim] = [[*kept, *more] for kept, more in zip(earlier, made, strict=True)]
    return found


def _untried(claim: Claim, values: tuple[Any, ...], because: str) -> ClaimResult:
    return ClaimResult(
        claim.row, claim.says, claim.name, values, claim.quantity, "undecided", because
    )


def _judged(
    claim: Claim,
    values: tuple[Any, ...],
    runs: Sequence[Sequence[TrialRun]],
    equivalence_margin: float,
) -> ClaimResult:
    failure = next((run.diverged for arm in runs for run in arm if run.diverged), None)
    is_of_memory = any(run.is_lost for arm in runs for run in arm)
    if failure is not None and (is_of_memory or claim.quantity != "held-out loss"):
        return _untried(claim, values, f"a run did not come to its end ({failure})")
    margin = MARGINS.get(claim.quantity, equivalence_margin)
    measured = [[_measured(run, claim.quantity) for run in arm] for arm in runs]
    comparisons = tuple(
        compare(
            measured[0],
            arm,
            equivalence_margin=margin,
            num_arms=len(values) - 1,
            is_deterministic=claim.quantity == "peak memory",
        )
        for arm in measured[1:]
    )
    figures = ", ".join(
        _figures(told_value(value), told_value(values[0]), comparison)
        for value, comparison in zip(values[1:], comparisons, strict=True)
    )
    if claim.quantity == "held-out loss" and claim.name in MOVES_BEST_RATE:
        figures += "; at one learning rate, not retuned for each value"
    return ClaimResult(
        claim.row,
        claim.says,
        claim.name,
        values,
        claim.quantity,
        outcome_of(claim, comparisons),
        f"{claim.quantity} of {claim.name} {figures}",
        comparisons,
    )


def outcome_of(claim: Claim, comparisons: Sequence[Comparison]) -> Outcome:
    """Whether the claim held, by the comparisons of its others with the reference."""
    verdicts = {comparison.verdict for comparison in comparisons}
    match claim.expects:
        case "about 40% lower":
            return _about_40_percent(comparisons[0])
        case "lower":
            holds, fails = {"better"}, {"worse", "equivalent"}
        case "not higher":
            holds, fails = {"better", "equivalent"}, {"worse"}
        case "same":
            holds, fails = {"equivalent"}, {"better", "worse"}
        case "none lower":
            holds, fails = {"worse", "equivalent"}, {"better"}
    if verdicts & fails:
        return "not held"
    return "held" if verdicts <= holds else "undecided"


def _about_40_percent(comparison: Comparison) -> Outcome:
    shares = comparison.interval_share
    if shares is None:
        return "undecided"
    (low, high), (least, most) = shares, ABOUT_40_PERCENT
    if least <= low and high <= most:
        return "held"
    return "not held" if high < least or low > most else "undecided"


def _measured(run: TrialRun, quantity: Quantity) -> float:
    if run.eval_loss is None:
        return float("inf")
    match quantity:
        case "held-out loss":
            return run.eval_loss
        case "seconds":
            return run.seconds
        case "peak memory":
            return float(run.peak_memory_bytes)


def _figures(value: str, reference: str, comparison: Comparison) -> str:
    shares = comparison.interval_share
    if comparison.effect_share is None:
        return f"{value} against {reference}: {comparison.because}"
    told = signed_share(comparison.effect_share)
    spread = "" if shares is None else f" ({signed_share(shares[0])} to {signed_share(shares[1])})"
    return f"{value} against {reference}: {told}{spread}"
