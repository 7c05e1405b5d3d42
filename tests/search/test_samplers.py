from __future__ import annotations

from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState
from support.search_runs import DESIGN

from trimtab.search.design import Design, Space
from trimtab.search.samplers import SamplerByNumber, first_points

START = 1e-4
WIDE = replace(DESIGN, spaces=(Space("learning_rate", START / 27, START * 27, START),))


def study_of(design: Design) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=SamplerByNumber(design))
    for point in first_points(design):
        study.enqueue_trial(point)
    return study


def asked(study: optuna.Study, design: Design = WIDE) -> optuna.Trial:
    return study.ask({space.name: space.distribution for space in design.spaces})


def rate(trial: optuna.Trial) -> float:
    return float(trial.params["learning_rate"])


def rates_while_diverging(number: int) -> list[float]:
    study = study_of(WIDE)
    rates = []
    for _ in range(number):
        trial = asked(study)
        rates.append(rate(trial))
        study.tell(trial, state=TrialState.PRUNED)
    return rates


@pytest.mark.parametrize("is_finished", [True, False])
def test_up_from_the_plans_rate_where_nothing_speaks_against_it(is_finished: bool) -> None:
    study = study_of(WIDE)
    first = asked(study)
    if is_finished:
        study.tell(first, 1.0)
    assert rate(first) == START
    assert rate(asked(study)) == pytest.approx(3 * START)


def test_down_while_every_run_has_diverged() -> None:
    rates = rates_while_diverging(4)
    low = WIDE.spaces[0].low
    halves = [low * (START / low) ** (0.5**number) for number in range(4)]
    assert rates == pytest.approx(halves)


def test_once_a_run_has_a_loss_it_stays_nearer_to_that_than_to_what_diverged() -> None:
    study = study_of(WIDE)
    study.tell(asked(study), state=TrialState.PRUNED)
    sound = asked(study)
    study.tell(sound, 1.0)
    proposed = rate(asked(study))
    assert WIDE.spaces[0].low <= proposed < (rate(sound) * START) ** 0.5


def test_a_run_that_was_lost_does_not_send_it_down() -> None:
    study = study_of(WIDE)
    study.tell(asked(study), state=TrialState.FAIL)
    above = asked(study)
    assert rate(above) == pytest.approx(3 * START)
    study.tell(above, state=TrialState.PRUNED)
    assert rate(asked(study)) < START


def test_down_in_the_rate_with_all_else_as_it_was() -> None:
    decay = Space("weight_decay", 0.01, 1.0, 0.1)
    design = replace(WIDE, spaces=(*WIDE.spaces, decay))
    study = study_of(design)
    study.tell(asked(study, design), state=TrialState.PRUNED)
    lower = asked(study, design)
    assert rate(lower) < START and lower.params["weight_decay"] == pytest.approx(0.1)


def test_down_until_it_is_next_to_what_was_tried_and_then_anywhere() -> None:
    rates = rates_while_diverging(8)
    assert rates[:4] == sorted(rates[:4], reverse=True)
    assert max(rates[4:]) > START


def test_down_beside_runs_that_are_under_way() -> None:
    study = study_of(WIDE)
    first, second = asked(study), asked(study)
    study.tell(first, state=TrialState.PRUNED)
    assert rate(second) > START > rate(asked(study))
