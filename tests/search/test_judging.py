from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from support.search_runs import DESIGN, NUM_ROWS, ROWS, diverged, run_of

from trimtab.search.design import Design, Space
from trimtab.search.halves import Halves
from trimtab.search.judging import Judged, against_start, fitted_horizon, taken, verdict
from trimtab.search.keeping import reason_not_to_keep
from trimtab.search.record import Horizon
from trimtab.search.storage import Finished
from trimtab.workflow.trial_runs import TrialRun


def judged(*runs: TrialRun, design: Design = DESIGN, rows: Halves = ROWS) -> Judged:
    finished = [Finished(n, dict(run.overrides), run) for n, run in enumerate(runs)]
    return Judged(design, rows, finished)


BASIN = [run_of(rate, 0.2 * math.log(rate / 3e-4) ** 2) for rate in (1e-5, 3e-5, 1e-4, 3e-4, 9e-4)]


def test_the_plateau_is_what_a_paired_test_cannot_tell_from_the_best() -> None:
    flat = [run_of(1e-4, 1.0), run_of(2e-4, 1.0), run_of(3e-4, 1.0), run_of(9e-4, 1.5)]
    low, high = judged(*flat).plateau()["learning_rate"]
    assert (low, high) == (1e-4, 3e-4)
    assert judged(*BASIN).plateau() == {"learning_rate": (3e-4, 3e-4)}


def test_a_plateau_ends_where_a_value_between_is_worse() -> None:
    runs = [run_of(1e-4, 1.0), run_of(2e-4, 1.4), run_of(4e-4, 0.999)]
    assert judged(*runs).plateau() == {"learning_rate": (4e-4, 4e-4)}


def test_bounds_of_sizes_are_sizes_that_were_run() -> None:
    design = replace(DESIGN, spaces=(Space("global_batch_size", 4, 64, 16),))
    proposed = {4: 5, 8: 11, 16: 16, 32: 27, 64: 60}
    finished = []
    for number, (size, params) in enumerate(proposed.items()):
        run = run_of(1e-4 * size, 0.3 * math.log(size / 11) ** 2)
        run = replace(run, overrides={"global_batch_size": size})
        finished.append(Finished(number, {"global_batch_size": params}, run))
    low, high = Judged(design, ROWS, finished).region()["global_batch_size"]
    assert {low, high} <= set(proposed) and low < high


def test_a_plateau_of_several_is_kept_only_with_all_else_as_taken() -> None:
    decay = Space("weight_decay", 0.01, 1.0, 0.1)
    design = replace(DESIGN, spaces=(*DESIGN.spaces, decay))

    def run(rate: float, weight_decay: float, loss: float) -> TrialRun:
        values = {"learning_rate": rate, "weight_decay": weight_decay}
        return replace(run_of(1e-4, loss), overrides=values)

    found = judged(
        run(1e-4, 0.1, 1.5),
        run(3e-4, 0.1, 1.0),
        run(4e-4, 0.1, 1.0),
        run(9e-4, 0.5, 1.0),
        run(3e-5, 0.02, 1.0),
        design=design,
    )
    best = dict(found.best.overrides) if found.best else {}
    assert best == {"learning_rate": 4e-4, "weight_decay": 0.1}
    assert found.plateau()["learning_rate"] == (3e-5, 9e-4)
    assert found.line("learning_rate", best) == (3e-4, 4e-4)
    assert found.line("weight_decay", best) == (0.1, 0.1)
    # A rate that the length moved was run with no other value.
    assert found.line("weight_decay", {**best, "learning_rate": 2e-4}) is None


def test_what_diverged_is_never_the_best_and_is_told() -> None:
    found = judged(*BASIN[:-1], diverged(9e-4))
    assert found.best is not None and found.best.overrides == {"learning_rate": 3e-4}
    assert found.tried(is_short=False)[-1].to_lowest is None
    low, high = found.region()["learning_rate"]
    assert low <= 3e-4 <= high <= 9e-4
    alone = judged(diverged(1e-4))
    assert alone.best is None and alone.plateau() == {} and alone.region() == {}
    assert verdict(alone, None, None) == "every run diverged, so nothing was found"


def test_a_better_value_is_taken_when_unseen_rows_say_so() -> None:
    found = judged(*BASIN)
    test = against_start(found)
    assert test is not None and test.is_better and test.num_rows == len(ROWS.test)
    assert taken(found, test, None) == {"learning_rate": 3e-4}
    assert "0.0003 is taken" in verdict(found, test, {"learning_rate": 3e-4})


def test_the_plans_own_stays_where_unseen_rows_do_not_agree() -> None:
    found = judged(run_of(1e-4, 1.0), run_of(3e-4, 0.9, test_loss=1.0))
    test = against_start(found)
    assert test is not None and test.is_within_noise
    assert taken(found, test, None) is None
    assert "the plan's own stays" in verdict(found, test, None)
    assert "noise" in verdict(found, test, None)


def test_the_plans_own_stays_where_it_is_the_best() -> None:
    found = judged(run_of(1e-4, 1.0), run_of(3e-4, 1.2))
    assert against_start(found) is None and taken(found, None, None) is None
    assert "it stays" in verdict(found, None, None)


def test_where_the_plans_own_was_not_run_nothing_is_taken() -> None:
    found = judged(run_of(3e-4, 1.0), run_of(9e-4, 1.2))
    assert found.start is None and taken(found, against_start(found), None) is None
    assert "was not run" in verdict(found, None, None)


def test_where_the_plans_own_diverged_any_loss_is_better() -> None:
    found = judged(diverged(1e-4), run_of(3e-5, 1.2))
    assert taken(found, against_start(found), None) == {"learning_rate": 3e-5}
    assert "came to no loss (not finite)" in verdict(found, None, {"learning_rate": 3e-5})


def died(rate: float) -> TrialRun:
    return replace(diverged(rate), diverged="its worker died", died=True)


def test_where_the_plans_own_process_died_it_stays() -> None:
    found = judged(died(1e-4), run_of(3e-5, 1.2))
    assert taken(found, against_start(found), None) is None
    told = verdict(found, None, None)
    assert "the plan's own stays" in told and "could not be compared (its worker died)" in told


def out_of_memory(rate: float) -> TrialRun:
    return replace(diverged(rate), diverged="memory ran out", ran_out_of_memory=True)


def test_where_the_plans_own_ran_out_of_memory_it_stays() -> None:
    found = judged(out_of_memory(1e-4), run_of(3e-5, 1.2))
    assert taken(found, against_start(found), None) is None
    assert "could not be compared (memory ran out)" in verdict(found, None, None)


@pytest.mark.parametrize("lost", [died, out_of_memory])
def test_a_run_that_was_lost_does_not_tell_that_its_value_is_worse(
    lost: Callable[[float], TrialRun],
) -> None:
    found = judged(run_of(1e-4, 1.0), lost(3e-4))
    assert reason_not_to_keep(found, None) == "no other run can be told from the plan's own"


def test_runs_that_chose_the_start_do_not_tell_that_the_others_are_worse() -> None:
    found = judged(run_of(1e-4, 1.0, test_loss=1.1), run_of(3e-4, 1.1))
    assert found.best == found.start
    assert reason_not_to_keep(found, None) == "no other run can be told from the plan's own"


def test_of_many_runs_that_are_equal_none_is_told_apart_by_luck() -> None:
    num_told = 0
    for draw in range(40):
        rng = np.random.default_rng(draw)
        runs = []
        for rate in (1e-4, 3e-4, 9e-4, 3e-5, 1e-5, 2e-4):
            losses = 10 * (1 + rng.normal(0, 0.1, NUM_ROWS))
            runs.append(run_of(rate, 1.0, row_losses=tuple(losses)))
        found = judged(*runs)
        lowest = found.lowest
        assert lowest is not None
        num_told += found.is_told_apart(lowest)
    assert num_told <= 4


def test_a_rate_that_wants_another_warmup_is_not_handed_on() -> None:
    def run(rate: float, warmup_ratio: float, loss: float) -> TrialRun:
        values = {"learning_rate": rate, "warmup_ratio": warmup_ratio}
        return replace(run_of(rate, loss), overrides=values)

    warmup = Space("warmup_ratio", 0.01, 0.5, 0.03)
    design = replace(DESIGN, spaces=(*DESIGN.spaces, warmup))
    for ratio, is_kept in ((0.03, True), (0.3, False)):
        found = judged(run(1e-4, 0.03, 1.5), run(3e-4, ratio, 1.0), design=design)
        chosen = taken(found, against_start(found), None)
        assert chosen == {"learning_rate": 3e-4, "warmup_ratio": ratio}
        assert (reason_not_to_keep(found, chosen) is None) == is_kept


def test_only_an_identified_horizon_moves_the_rate() -> None:
    found = judged(*BASIN)
    test = against_start(found)
    sure, unsure = Horizon(-0.5, -0.7, -0.3, 60, 20), Horizon(-0.5, -1.2, 0.2, 60, 20)
    moved = taken(found, test, sure)
    assert moved is not None
    # By the interval's end nearer to 0: ten times the length, which nobody has run.
    assert moved["learning_rate"] == pytest.approx(3e-4 * 10**-0.3, rel=0.02)
    assert taken(found, test, unsure) == {"learning_rate": 3e-4}


@pytest.mark.parametrize(
    ("rates", "best", "exponent", "expected"),
    [
        # Down from above the plan's own, 1e-4, it goes no lower than that, which the test rejected.
        ((1e-5, 1e-4, 3e-4, 9e-4), 3e-4, -1.5, 1e-4),
        # Up from below it no higher.
        ((1e-5, 3e-5, 1e-4, 3e-4), 3e-5, 1.5, 1e-4),
        # Nor further than was run.
        ((1e-4, 3e-4, 9e-4), 3e-4, 1.5, 9e-4),
        ((1e-5, 3e-5, 1e-4), 3e-5, -1.5, 1e-5),
    ],
)
def test_a_moved_rate_stays_within_what_was_run_and_on_its_side_of_the_plans_own(
    rates: tuple[float, ...], best: float, exponent: float, expected: float
) -> None:
    found = judged(*[run_of(rate, 0.2 * math.log(rate / best) ** 2) for rate in rates])
    horizon = Horizon(exponent, exponent - 0.1, exponent + 0.1, 60, 20)
    test = against_start(found)
    moved = taken(found, test, horizon)
    assert moved == {"learning_rate": expected}
    told = verdict(found, test, moved)
    assert "not run itself" not in told
    assert ("stays" in told) == (expected == 1e-4)


def test_a_moved_rate_does_not_go_back_to_a_plans_own_that_diverged() -> None:
    runs = [run_of(rate, 0.2 * math.log(rate / 1e-5) ** 2) for rate in (3e-6, 1e-5, 3e-5)]
    found = judged(diverged(1e-4), *runs)
    assert taken(found, None, Horizon(2.0, 1.9, 2.1, 60, 20)) == {"learning_rate": 3e-5}


def test_a_start_that_no_test_tells_from_the_rest_is_not_kept() -> None:
    unsure = judged(run_of(1e-4, 1.0), run_of(3e-4, 0.9, test_loss=1.0))
    told = reason_not_to_keep(unsure, taken(unsure, against_start(unsure), None))
    assert told == "no value is shown to be better than the plan's own"
    flat = judged(run_of(1e-4, 0.994, test_loss=1.0), run_of(3e-4, 1.0), diverged(1e-3))
    assert flat.best == flat.start
    assert reason_not_to_keep(flat, None) == "no other run can be told from the plan's own"
    assert reason_not_to_keep(judged(diverged(1e-4)), None) == "every run diverged"


def test_a_start_is_kept_where_something_else_is_shown_to_be_worse() -> None:
    assert reason_not_to_keep(judged(run_of(1e-4, 1.0), run_of(3e-4, 1.2)), None) is None
    assert reason_not_to_keep(judged(run_of(1e-4, 1.0), diverged(3e-4)), None) is None
    found = judged(*BASIN)
    assert reason_not_to_keep(found, taken(found, against_start(found), None)) is None


def test_a_shift_of_the_best_rate_with_the_length_is_found() -> None:
    rates = np.geomspace(1e-5, 1e-3, 9)
    long = judged(*[run_of(rate, 2 * math.log(rate / 5e-5) ** 2) for rate in rates])
    short = judged(*[run_of(rate, 2 * math.log(rate / 2e-4) ** 2) for rate in rates])
    found = fitted_horizon(long, short, "learning_rate")
    assert found is not None and found.is_identified
    # The best rate is 4 times less at 3 times the length.
    assert found.exponent == pytest.approx(-math.log(4) / math.log(3), abs=0.35)
    same = fitted_horizon(long, long, "learning_rate")
    assert same is not None and not same.is_identified
    assert fitted_horizon(long, judged(*BASIN[:2]), "learning_rate") is None


def test_the_sentence_names_what_is_taken_where_the_length_moves_it() -> None:
    found = judged(*BASIN)
    test = against_start(found)
    moved = taken(found, test, Horizon(-0.5, -0.7, -0.3, 60, 20))
    assert moved is not None
    told = verdict(found, test, moved)
    rate = moved["learning_rate"]
    assert told.startswith(f"learning_rate {rate:g} is taken, not run itself: moved toward the run")
    assert "from learning_rate 0.0003, the best in runs of 60: -0." in told


def test_of_what_is_equal_the_best_is_where_the_curve_is_lowest() -> None:
    """The lowest loss lies at an end of three that no test tells apart, between two worse ones."""
    losses = {3e-5: 1.3, 1e-4: 1.0, 2e-4: 1.001, 4e-4: 1.0005, 1e-3: 1.2}
    found = judged(*[run_of(rate, loss) for rate, loss in losses.items()])
    lowest, best = found.lowest, found.best
    assert lowest is not None and lowest.overrides == {"learning_rate": 4e-4}
    assert found.plateau() == {"learning_rate": (1e-4, 4e-4)}
    assert best is not None and best.overrides == {"learning_rate": 2e-4}


def test_the_lowest_is_the_best_where_it_is_told_apart_or_runs_are_few() -> None:
    told_apart = judged(run_of(1e-4, 1.0), run_of(2e-4, 1.3), run_of(4e-4, 1.31))
    few = judged(run_of(1e-4, 1.0), run_of(2e-4, 0.999))
    for found in (told_apart, few):
        assert found.best is not None and found.best == found.lowest


def test_the_region_holds_what_is_equal_to_the_lowest() -> None:
    """Runs next to each other at the range's end, of which the last but one is the lowest."""
    losses = {0.741: 1.2864, 0.848: 1.2114, 1.03: 1.2386, 1.18: 1.3545, 3.85: 2.1544}
    design = replace(DESIGN, spaces=(Space("learning_rate", 20 / 27, 540.0, 20.0),))
    runs = [run_of(rate, loss) for rate, loss in losses.items()]
    low, high = judged(*runs, diverged(20.0), design=design).region()["learning_rate"]
    assert low <= 0.848 <= high
