"""An Optuna sampler that fits a quadratic in the logarithms: for budgets of a few long runs."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from trimtab.search.proposing import propose
from trimtab.search.space import Axis, axis_of, points, values
from trimtab.search.surrogate import Array

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class LocalQuadraticSampler(BaseSampler):
    """Proposes from a quadratic in the logarithms of all floats and whole numbers of a study.

    The first trial is the middle of the space; put a better guess before it with
    `study.enqueue_trial`. The next ones step along one hyperparameter each, and from then on a
    Bayesian quadratic with a smooth residual is fitted, whose lower confidence bound is followed
    inside a trust region around the best trial. Trials that are not finite, pruned or failed count
    as worse than any finite one, and their surroundings are left alone. Trials that still run are
    taken to come out as predicted, so that processes may share a study. Categories and floats with
    a step are drawn at random.

    `min_distance`, in halves of the ranges, keeps proposals off what was tried: for objectives that
    come out the same when they are asked again.

    With one seed the same study gets the same proposals, whichever process asks. Raises ValueError
    in studies of more than one objective.
    """

    def __init__(self, *, seed: int | None = None, min_distance: float = 0.0) -> None:
        self._seed = secrets.randbits(32) if seed is None else seed
        self._min_distance = min_distance

    def reseed_rng(self) -> None:
        self._seed = secrets.randbits(32)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The numeric hyperparameters that all finished trials share, the failed ones too.

        Until one has finished, those that the trials under way share.
        """
        trials = [each for each in study.get_trials(deepcopy=False) if each.distributions]
        finished = [each.distributions for each in trials if each.state in FINISHED]
        running = [
            each.distributions
            for each in trials
            if each.state == TrialState.RUNNING and each.number != trial.number
        ]
        spaces = finished or running
        if not spaces:
            return {}
        return {
            name: each
            for name, each in sorted(spaces[0].items())
            if axis_of(name, each) is not None and all(s.get(name) == each for s in spaces)
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._raise_error_if_multi_objective(study)
        axes = [axis for name, each in search_space.items() if (axis := axis_of(name, each))]
        others = search_space.keys() - {axis.name for axis in axes}
        drawn = {
            name: self._drawn(study, trial, name, search_space[name]) for name in sorted(others)
        }
        if not axes:
            return drawn
        tried = [each for each in study.get_trials(deepcopy=False) if _has(each, axes, trial)]
        finished = [each for each in tried if each.state in FINISHED]
        running = [each for each in tried if each.state == TrialState.RUNNING]
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        point = propose(
            points(axes, [each.params for each in finished]),
            _losses(finished, sign),
            points(axes, [each.params for each in running]),
            np.random.default_rng([self._seed, trial.number]),
            min_distance=self._min_distance,
        )
        return drawn | values(axes, point)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        self._raise_error_if_multi_objective(study)
        axis = axis_of(param_name, param_distribution)
        is_first = not any(param_name in each.params for each in study.get_trials(deepcopy=False))
        if axis is not None and is_first:
            return axis.value(0.0)
        return self._drawn(study, trial, param_name, param_distribution)

    def _drawn(
        self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> Any:
        """At random, by the seed, the trial's number and the name, whoever asks in which order."""
        mixed = np.random.SeedSequence([self._seed, trial.number, crc32(name.encode())])
        one = RandomSampler(seed=int(mixed.generate_state(1)[0]))
        return one.sample_independent(study, trial, name, distribution)


def _has(trial: FrozenTrial, axes: Sequence[Axis], asking: FrozenTrial) -> bool:
    """Is it another trial, and inside the space on every axis?"""
    return trial.number != asking.number and all(
        axis.name in trial.params and axis.low <= trial.params[axis.name] <= axis.high
        for axis in axes
    )


def _losses(trials: Sequence[FrozenTrial], sign: float) -> Array:
    """What is to be made small, by trial; infinite where a trial came to no finite value."""
    found = [
        sign * each.value
        if each.state == TrialState.COMPLETE and each.value is not None
        else math.inf
        for each in trials
    ]
    return np.array([loss if math.isfinite(loss) else math.inf for loss in found])
