"""A learning rate for each value: a short search, on a seed that the study does not use."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution

from trimtab.errors import ConfigError
from trimtab.planning.rules.ruling import rounded
from trimtab.search.sampler import LocalQuadraticSampler
from trimtab.study.trials import Trials
from trimtab.workflow.trial_plans import TrialBench

RETUNE_TRIALS = 5
REACH = 10.0
"""How far above and below its start is looked."""
SEED_OFFSET = 1_000
"""The rate is chosen on runs that are in no comparison, so that choosing favours no arm's seeds."""


@dataclass(frozen=True, slots=True)
class ArmRate:
    """The learning rate of an arm's runs; `is_edge`: an end of what a search for it tried."""

    rate: float
    is_edge: bool = False


def retuned_rate(
    bench: TrialBench, trials: Trials, moved: Mapping[str, Any], title: str
) -> ArmRate:
    """The best learning rate of a short search with the settings of one arm.

    It starts from the plan's, moved as the prior moves with the arm's settings where the schedule
    allows both. Where every run came to no loss that start is taken. Raises StopRequested as a run
    does.
    """
    planned = bench.order(moved).settings
    seed = (planned.seed + SEED_OFFSET) % 2**32
    start = planned.learning_rate
    with suppress(ConfigError):
        prior, arms_prior = bench.learning_rate_prior(), bench.learning_rate_prior(moved)
        if arms_prior != prior:
            start = rounded(start * arms_prior / prior, 3)
    space: dict[str, BaseDistribution] = {
        "learning_rate": FloatDistribution(start / REACH, start * REACH, log=True)
    }
    found: dict[float, float] = {}
    with _quiet_optuna():
        search = optuna.create_study(sampler=LocalQuadraticSampler(seed=planned.seed))
        for _ in range(RETUNE_TRIALS):
            asked = search.ask(space)
            rate = rounded(asked.params["learning_rate"], 3)
            found[rate] = _loss_at(rate, bench, trials, moved, seed, title)
            search.tell(asked, found[rate])
    best = min(found, key=found.__getitem__)
    if not math.isfinite(found[best]):
        return ArmRate(start)
    return ArmRate(best, is_edge=best in {min(found), max(found)})


def _loss_at(
    rate: float, bench: TrialBench, trials: Trials, moved: Mapping[str, Any], seed: int, title: str
) -> float:
    """Infinite where no run can have the rate, or the run comes to no loss."""
    title = f"{title}, searching its rate: {rate:g}"
    try:
        order = bench.order({**moved, "learning_rate": rate}, seed=seed)
    except ConfigError as error:
        trials.observer.noted(f"{title}: cannot be run: {error.what}")
        return math.inf
    run = trials.run(order, title)
    return math.inf if run.eval_loss is None else run.eval_loss


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    former = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(former)
