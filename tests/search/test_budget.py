from __future__ import annotations

from dataclasses import replace

from support.search_runs import DESIGN, diverged, run_of

from trimtab.search.budget import num_made_up_for

WHOLE = 1100
"""The tokens of `run_of`, its scoring among them."""
ALONE = replace(DESIGN, num_short_trials=0, short_num_steps=0, run_num_tokens=6 * WHOLE)


def early(rate: float, **changes: object) -> object:
    return replace(diverged(rate), **{"num_tokens": 100, "num_eval_tokens": 0, **changes})


SOUND = [run_of(rate, 1.0) for rate in (1e-4, 2e-4, 3e-4, 4e-4)]


def test_what_diverged_early_is_made_up_for() -> None:
    assert num_made_up_for([*SOUND, early(1e-3), early(2e-3)], ALONE) == 1
    assert num_made_up_for([*SOUND[:3], early(1e-3), early(2e-3), early(3e-3)], ALONE) == 2
    assert num_made_up_for([*SOUND, SOUND[0], early(1e-3)], ALONE) == 0


def test_no_more_than_diverged_and_than_were_made_up_for_already() -> None:
    rich = replace(ALONE, budget=10.0)
    assert num_made_up_for([*SOUND, early(1e-3), early(2e-3)], rich) == 2
    assert num_made_up_for([*SOUND, early(1e-3), early(2e-3)], rich, num_already=1) == 1
    assert num_made_up_for([*SOUND, early(1e-3), early(2e-3)], rich, num_already=2) == 0
    assert num_made_up_for([SOUND[0], *[early(1e-3)] * 9], rich) == rich.num_trials


def test_what_died_is_not_and_runs_that_tell_nothing_buy_no_more() -> None:
    rich = replace(ALONE, budget=10.0)
    assert num_made_up_for([*SOUND, early(1e-3, died=True)], rich) == 0
    died = early(1e-3, died=True)
    assert num_made_up_for([*SOUND[:3], died, early(2e-3), early(3e-3)], ALONE) == 1
    assert num_made_up_for([early(1e-3), early(2e-3)], rich) == 0


def test_runs_of_a_second_length_keep_their_room() -> None:
    runs = [*SOUND, early(1e-3), early(2e-3)]
    apart = replace(ALONE, num_short_trials=4, short_num_steps=20, budget=1.2)
    assert num_made_up_for(runs, replace(apart, num_short_trials=0)) == 2
    assert num_made_up_for(runs, apart) == 1
    branched = [replace(run, branch=replace(run, num_tokens=0)) for run in SOUND]
    short = replace(apart, short_branches=True, num_short_trials=6)
    assert num_made_up_for([*branched, *runs[4:]], short) == 2
    assert num_made_up_for([*branched, *runs[4:]], replace(short, budget=1.1)) == 1
