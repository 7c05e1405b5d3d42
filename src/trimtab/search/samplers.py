"""The samplers by name, each made anew for every trial, so that a killed search goes on alike."""

from __future__ import annotations

import itertools
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from trimtab.search.design import Design
from trimtab.search.ranges import BRACKET
from trimtab.search.sampler import LocalQuadraticSampler
from trimtab.search.space import axis_of

MIN_DISTANCE = 0.1
"""In halves of a range, 1.4 times a rate: all runs share a seed, so nearer ones say little new."""


class SamplerByNumber(BaseSampler):
    """Each trial is proposed by a sampler that is made for its number: what that draws depends on
    the number and the design's seed, whichever process asks, and after whichever others."""

    def __init__(self, design: Design) -> None:
        self._design = design
        self._made: tuple[int, BaseSampler] | None = None

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._of(trial).before_trial(study, trial)

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if self._made is None or self._made[0] != trial.number:
            self._made = trial.number, make_sampler(self._design, trial.number)
        return self._made[1]


def make_sampler(design: Design, number: int) -> BaseSampler:
    """The sampler that proposes trial `number`: what it draws depends on that and on the seed.

    Trials of a grid are fixed beforehand; what it lacks of the number of trials is random.
    """
    seed = (design.seed + 7919 * number) % 2**32
    match design.sampler:
        case "local":
            return LocalQuadraticSampler(seed=design.seed, min_distance=MIN_DISTANCE)
        case "tpe":
            return TPESampler(seed=seed)
        case "gp":
            return GPSampler(seed=seed)
        case "random" | "grid":
            return RandomSampler(seed=seed)


def first_points(design: Design) -> list[dict[str, float]]:
    """What is tried before the sampler is asked: the plan's values, a step up, or a grid."""
    start = [design.start] if design.start is not None else []
    if design.sampler == "grid":
        return start + _grid(design)
    if design.sampler == "local" and design.names == ("learning_rate",):
        return start + _bracket(design)
    return start


def _bracket(design: Design) -> list[dict[str, float]]:
    """Up from the plan's rate: a rate that is too high ends soon and costs little."""
    (space,) = design.spaces
    above = BRACKET * (space.start or space.low)
    return [{space.name: above}] if above <= space.high else []


def _grid(design: Design) -> list[dict[str, float]]:
    """Evenly spread in the logarithms, ends included; as many as the trials have room for."""
    room = design.num_trials - (design.start is not None)
    per_axis = max(2, int(room ** (1 / len(design.spaces)) + 1e-9))
    spread = []
    for space in design.spaces:
        axis = axis_of(space.name, space.distribution)
        assert axis is not None
        spread.append([axis.value(2 * place / (per_axis - 1) - 1) for place in range(per_axis)])
    points = itertools.product(*spread)
    return [dict(zip(design.names, point, strict=True)) for point in points][:room]
