"""The samplers by name, each made anew for every trial, so that a killed search goes on alike."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from trimtab.search.design import Design
from trimtab.search.ranges import BRACKET
from trimtab.search.sampler import LocalQuadraticSampler
from trimtab.search.space import axis_of

MIN_DISTANCE = 0.04
"""In halves of a range, 1.14 times a rate: all runs share a seed, so nearer ones say little new.
At 0.1 the last runs had no room around the best and went where nothing is to be found."""


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
        case "local" if "learning_rate" in design.names:
            return FromThePlansRate(design)
        case "local":
            return LocalQuadraticSampler(seed=design.seed, min_distance=MIN_DISTANCE)
        case "tpe":
            return TPESampler(seed=seed)
        case "gp":
            return GPSampler(seed=seed)
        case "random" | "grid":
            return RandomSampler(seed=seed)


class FromThePlansRate(LocalQuadraticSampler):
    """Of the learning rate it is known which way to look before two runs have a loss.

    Up from the plan's, where the rate is searched alone: one that is too high ends soon and costs
    little. Down while every run that has ended diverged, half of what is left of the range's
    logarithms, with all else as the first run had it; anywhere once that is next to what was tried.
    """

    def __init__(self, design: Design) -> None:
        super().__init__(seed=design.seed, min_distance=MIN_DISTANCE)
        self._spaces = design.spaces

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        names = {space.name for space in self._spaces}
        known = None
        if search_space.keys() >= names:
            trials = study.get_trials(deepcopy=False)
            others = [each for each in trials if each.number != trial.number]
            known = self._known([each for each in others if each.params.keys() >= names])
        return known or super().sample_relative(study, trial, search_space)

    def _known(self, begun: Sequence[FrozenTrial]) -> dict[str, Any] | None:
        (space,) = (each for each in self._spaces if each.name == "learning_rate")
        assert space.start is not None
        rates = [each.params[space.name] for each in begun]
        told = {each.state for each in begun} & {TrialState.COMPLETE, TrialState.PRUNED}
        if told == {TrialState.PRUNED}:
            axis = axis_of(space.name, space.distribution)
            assert axis is not None
            to_low = axis.scaled(min(rates)) + 1
            if to_low / 2 <= MIN_DISTANCE:
                return None
            return {**begun[0].params, space.name: axis.value(to_low / 2 - 1)}
        if len(self._spaces) == 1 and rates == [space.start]:
            return {space.name: BRACKET * space.start}
        return None


def first_points(design: Design) -> list[dict[str, float]]:
    """What is tried before the sampler is asked: the plan's values, or a grid."""
    start = [design.start] if design.start is not None else []
    return start + _grid(design) if design.sampler == "grid" else start


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
