from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase

import trimtab.search
from trimtab.search import LocalQuadraticSampler

optuna.logging.set_verbosity(optuna.logging.WARNING)


class TestOptunasOwnSuite(BasicSamplerTestCase, RelativeSamplerTestCase):
    """What Optuna asks of every sampler."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: LocalQuadraticSampler(seed=0)


def study_of(
    loss: Callable[[float], float],
    num_trials: int,
    *,
    seed: int = 0,
    low: float = 1e-6,
    high: float = 1e-2,
    direction: str = "minimize",
) -> optuna.Study:
    study = optuna.create_study(sampler=LocalQuadraticSampler(seed=seed), direction=direction)
    study.optimize(
        lambda trial: loss(trial.suggest_float("learning_rate", low, high, log=True)), num_trials
    )
    return study


def basin(rate: float, best: float = 3e-5) -> float:
    return 2 + 0.1 * math.log(rate / best) ** 2


def rates_of(study: optuna.Study) -> list[float]:
    return [trial.params["learning_rate"] for trial in study.trials]


@pytest.mark.parametrize("best", [3e-6, 3e-5, 1e-3])
def test_six_runs_come_near_the_best_rate(best: float) -> None:
    study = study_of(lambda rate: basin(rate, best), 6)
    assert abs(math.log(study.best_params["learning_rate"] / best)) < math.log(1.6)


def test_the_first_run_is_the_middle_of_the_logarithms() -> None:
    assert rates_of(study_of(basin, 1))[0] == pytest.approx(1e-4)


def test_one_seed_gives_the_same_proposals() -> None:
    assert rates_of(study_of(basin, 6)) == rates_of(study_of(basin, 6))
    assert rates_of(study_of(basin, 6)) != rates_of(study_of(basin, 6, seed=1))


def test_proposals_keep_their_distance_from_what_was_tried() -> None:
    def logs(**options: float) -> list[float]:
        study = optuna.create_study(sampler=LocalQuadraticSampler(seed=0, **options))
        study.optimize(lambda trial: basin(trial.suggest_float("rate", 1e-6, 1e-2, log=True)), 6)
        return sorted(math.log(trial.params["rate"]) for trial in study.trials)

    distance = 0.1 * math.log(1e4) / 2
    assert min(b - a for a, b in pairwise(logs())) < distance
    assert min(b - a for a, b in pairwise(logs(min_distance=0.1))) >= distance * (1 - 1e-9)


def test_losses_in_another_unit_give_the_same_proposals() -> None:
    scaled = study_of(lambda rate: 1000 * basin(rate) - 7, 6)
    assert rates_of(scaled) == pytest.approx(rates_of(study_of(basin, 6)), rel=1e-6)


def test_maximizing_is_minimizing_the_negative() -> None:
    maximized = study_of(lambda rate: -basin(rate), 6, direction="maximize")
    assert rates_of(maximized) == rates_of(study_of(basin, 6))


def test_no_run_is_put_where_a_nearer_one_diverged() -> None:
    edge = 1e-4

    def loss(rate: float) -> float:
        return basin(rate, best=9e-5) if rate < edge else math.nan

    study = study_of(loss, 10)
    finite = [rate for rate in rates_of(study) if rate < edge]
    diverged = [rate for rate in rates_of(study) if rate >= edge]
    assert len(finite) >= 5
    assert diverged, "the middle itself diverges here"
    assert study.best_params["learning_rate"] > 3e-5


@pytest.mark.parametrize("worst", [math.nan, math.inf])
def test_where_all_has_diverged_the_next_run_is_far_away(worst: float) -> None:
    rates = rates_of(study_of(lambda _: worst, 3))
    assert min(abs(math.log(a / b)) for a, b in pairwise(rates)) > 1


def test_values_that_failed_once_and_then_did_not_are_sound() -> None:
    study = optuna.create_study(sampler=LocalQuadraticSampler(seed=0))
    space = {"learning_rate": optuna.distributions.FloatDistribution(1e-6, 1e-2, log=True)}
    study.enqueue_trial({"learning_rate": 1e-4})
    study.enqueue_trial({"learning_rate": 1e-4})
    study.tell(study.ask(space), state=optuna.trial.TrialState.FAIL)
    study.tell(study.ask(space), 1.0)
    assert 1e-6 <= study.ask(space).params["learning_rate"] <= 1e-2


def test_a_pruned_run_counts_as_worse_than_all_others() -> None:
    pruned_above = 1e-4

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("learning_rate", 1e-6, 1e-2, log=True)
        if rate > pruned_above:
            raise optuna.TrialPruned
        return basin(rate, best=1e-5)

    study = optuna.create_study(sampler=LocalQuadraticSampler(seed=0))
    study.optimize(objective, 8)
    states = [trial.state.name for trial in study.trials]
    assert states.count("PRUNED") <= 2


def test_a_better_guess_can_be_put_first() -> None:
    study = optuna.create_study(sampler=LocalQuadraticSampler(seed=0))
    study.enqueue_trial({"learning_rate": 2e-5})
    study.optimize(
        lambda trial: basin(trial.suggest_float("learning_rate", 1e-6, 1e-2, log=True)), 4
    )
    assert rates_of(study)[0] == 2e-5
    assert abs(math.log(study.best_params["learning_rate"] / 3e-5)) < math.log(2)


def test_runs_under_way_are_not_proposed_again() -> None:
    study = optuna.create_study(sampler=LocalQuadraticSampler(seed=0))
    space = {"learning_rate": optuna.distributions.FloatDistribution(1e-6, 1e-2, log=True)}
    for _ in range(4):
        trial = study.ask(space)
        study.tell(trial, basin(trial.params["learning_rate"]))
    first, second = study.ask(space), study.ask(space)
    ratio = first.params["learning_rate"] / second.params["learning_rate"]
    assert abs(math.log(ratio)) > 0.05


@pytest.mark.parametrize("num_finished", [0, 1])
def test_runs_that_are_begun_together_are_apart(num_finished: int) -> None:
    study = optuna.create_study()
    space = {"rate": optuna.distributions.FloatDistribution(1e-6, 1e-2, log=True)}
    asked = []
    for number in range(5):
        # A process of its own each: nothing is shared but the study and the seed.
        study.sampler = LocalQuadraticSampler(seed=0, min_distance=0.1)
        asked.append(study.ask(space))
        if number < num_finished:
            study.tell(asked[number], basin(asked[number].params["rate"]))
    logs = sorted(math.log(trial.params["rate"]) for trial in asked)
    assert min(b - a for a, b in pairwise(logs)) >= 0.05 * math.log(1e4) * (1 - 1e-9)


def test_categories_are_drawn_alike_whichever_process_asks() -> None:
    def drawn(*, is_new: bool) -> list[str]:
        sampler = LocalQuadraticSampler(seed=0)
        study = optuna.create_study(sampler=sampler)
        kinds = optuna.distributions.CategoricalDistribution(list("abcdefgh"))
        found = []
        for _ in range(12):
            study.sampler = LocalQuadraticSampler(seed=0) if is_new else sampler
            trial = study.ask({"kind": kinds})
            study.tell(trial, 1.0)
            found.append(trial.params["kind"])
        return found

    assert drawn(is_new=True) == drawn(is_new=False)
    assert len(set(drawn(is_new=True))) > 3


def test_batch_and_rate_are_searched_together() -> None:
    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("learning_rate", 1e-6, 1e-2, log=True)
        batch = trial.suggest_int("global_batch_size", 4, 256, log=True)
        assert isinstance(batch, int)
        best = 1e-5 * math.sqrt(batch)
        return basin(rate, best) + 0.05 * math.log(batch / 32) ** 2

    study = optuna.create_study(sampler=LocalQuadraticSampler(seed=0))
    study.optimize(objective, 12)
    assert study.best_value < 2.1


def test_the_package_names_the_sampler_alone() -> None:
    assert trimtab.search.__all__ == ["LocalQuadraticSampler"]
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        _ = trimtab.search.Other
