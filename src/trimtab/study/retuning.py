"""A learning rate for each value: a short search, on a seed that the study does not use."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution

from trimtab.planning.rules.ruling import rounded
from trimtab.search.sampler import LocalQuadraticSampler
from trimtab.study.trials import Trials
from trimtab.workflow.trial_plans import TrialBench

RETUNE_TRIALS = 5
REACH = 10.0
"""How far above and below the plan's rate is looked."""
SEED_OFFSET = 1_000
"""The rate is chosen on runs that are in no comparison, so that choosing favours no arm's seeds."""


def retuned_rate(bench: TrialBench, trials: Trials, moved: Mapping[str, Any], title: str) -> float:
    """The best learning rate of a short search with the settings of one arm.

    Where every run came to no loss it is the plan's. Raises StopRequested as a run does.
    """
    planned = bench.order(moved).settings
    seed = (planned.seed + SEED_OFFSET) % 2**32
    start = planned.learning_rate
    space: dict[str, BaseDistribution] = {
        "learning_rate": FloatDistribution(start / REACH, start * REACH, log=True)
    }
    found: dict[float, float] = {}
    with _quiet_optuna():
        search = optuna.create_study(sampler=LocalQuadraticSampler(seed=planned.seed))
        for _ in range(RETUNE_TRIALS):
            asked = search.ask(space)
            rate = rounded(asked.params["learning_rate"], 3)
            order = bench.order({**moved, "learning_rate": rate}, seed=seed)
            run = trials.run(order, f"{title}, searching its rate: {rate:g}")
            found[rate] = math.inf if run.eval_loss is None else run.eval_loss
            search.tell(asked, found[rate])
    best = min(found, key=found.__getitem__)
    return best if math.isfinite(found[best]) else start


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    former = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(former)
