from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from planning.facts import planned

from trimtab.errors import ConfigError
from trimtab.planning.plan import Plan
from trimtab.search.design import Design, make_design, searched_names


def plan_of(num_steps: int = 400, **values: Any) -> Plan:
    plan = planned(**values)
    predictions = replace(plan.predictions, tokens_per_step=1000.0)
    return replace(
        plan, derived={**plan.derived, "num_train_steps": num_steps}, predictions=predictions
    )


def design(plan: Plan | None = None, *names: str, **options: Any) -> Design:
    options = {"num_eval_tokens": 2000, **options}
    return make_design(plan or plan_of(), names or ("learning_rate",), **options)


def test_all_runs_and_their_scoring_fit_the_budget() -> None:
    for budget in (0.2, 0.3, 1.0, 3.0):
        made = design(budget=budget)
        updates = made.num_trials * made.num_steps + made.num_short_trials * made.short_num_steps
        scored = (made.num_trials + made.num_short_trials) * 2
        assert updates + scored <= budget * 400
        assert made.num_steps <= 400
        assert made.num_trials <= 6


def test_the_horizon_is_fitted_only_where_the_budget_has_room() -> None:
    assert design(budget=0.3).num_short_trials == 0
    affords = design(budget=1.0)
    assert affords.num_short_trials == 4
    assert affords.short_num_steps == affords.num_steps // 3 >= 10


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_no_second_length_is_paid_for_where_no_rate_is_searched(schedule: str) -> None:
    plan = plan_of(lr_scheduler_type=schedule, weight_decay=0.1)
    made = design(plan, "weight_decay", budget=1.0)
    assert made.num_short_trials == 0 and not made.short_branches
    assert 6 * (made.num_steps + 2) <= 400 < 6 * (made.num_steps + 3)
    assert design(plan, "weight_decay", "learning_rate", budget=1.2).num_short_trials > 0


@pytest.mark.parametrize(
    ("schedule", "own_updates"), [("warmup_stable_decay", 0.1), ("constant_with_warmup", 0.0)]
)
def test_short_runs_branch_off_long_ones_where_the_schedule_has_a_trunk(
    schedule: str, own_updates: float
) -> None:
    apart = design(budget=1.0)
    made = design(plan_of(lr_scheduler_type=schedule), budget=1.0)
    assert made.short_branches and not apart.short_branches
    assert made.num_short_trials == made.num_trials == 6
    assert made.short_num_steps == made.num_steps // 3
    assert made.num_steps > apart.num_steps
    decay = math.ceil(own_updates * made.short_num_steps)
    assert 399 - 6 < 6 * (made.num_steps + decay + 2 * 2) <= 400


def test_short_runs_are_their_own_where_rates_of_single_updates_move() -> None:
    plan = plan_of(lr_scheduler_type="warmup_stable_decay")
    assert not design(plan, "learning_rate", "warmup_ratio", budget=1.0).short_branches
    half = plan_of(max_steps=400, lr_scheduler_type="constant_with_warmup", warmup_ratio=0.5)
    assert not design(half, budget=1.0).short_branches


def test_fewer_runs_rather_than_shorter_than_ten_updates() -> None:
    made = design(budget=0.14)
    assert made.num_trials == 4 and made.num_steps >= 10
    with pytest.raises(ConfigError, match=r"too few for 4 runs of 10.*--budget 12% or more"):
        design(budget=0.05)


def test_a_range_reaches_27_times_either_way_from_the_plans_rate() -> None:
    (space,) = design(plan_of(learning_rate=1e-4)).spaces
    assert (space.low, space.start, space.high) == pytest.approx((1e-4 / 27, 1e-4, 27e-4))
    for start in (2e-6, 5e-3, 0.1):
        (space,) = design(plan_of(learning_rate=start, optim="sgd")).spaces
        assert (space.low, space.high) == pytest.approx((start / 27, start * 27))


def test_others_stay_inside_the_catalogues_range_where_they_start_there() -> None:
    (space,) = design(plan_of(weight_decay=0.5), "weight_decay").spaces
    assert (space.low, space.high) == pytest.approx((0.5 / 9, 1.0))
    (space,) = design(plan_of(weight_decay=2.0), "weight_decay").spaces
    assert (space.low, space.high) == pytest.approx((2 / 9, 18.0))


def test_what_is_zero_has_the_catalogues_range_and_no_start() -> None:
    made = design(plan_of(), "learning_rate", "weight_decay")
    assert made.spaces[1].start is None and made.start is None
    assert (made.spaces[1].low, made.spaces[1].high) == (1e-3, 1.0)
    assert Design.from_json(made.to_json()) == made


def test_sizes_are_powers_of_two() -> None:
    (space,) = design(plan_of(global_batch_size=16), "global_batch_size", budget=1.0).spaces
    assert [space.value(each) for each in (4, 11, 12, 64)] == [4, 8, 16, 64]


@pytest.mark.parametrize(
    ("size", "budget"), [(16, 0.5), (16, 3.0), (12, 1.0), (64, 0.9), (256, 0.3)]
)
def test_runs_with_any_batch_take_the_same_rows_in_ten_updates_or_more(
    size: int, budget: float
) -> None:
    for names in (("global_batch_size",), ("learning_rate", "global_batch_size")):
        made = design(plan_of(global_batch_size=size), *names, budget=budget + 0.5)
        space = made.spaces[-1]
        sizes = {space.value(2.0**power) for power in range(12)}
        for length in (made.num_steps, made.short_num_steps):
            assert all(length * size % each == 0 for each in sizes)
            assert length == 0 or length * size >= 10 * max(sizes)


def test_a_budget_without_room_for_the_largest_batch_is_refused() -> None:
    plan = plan_of(global_batch_size=16)
    with pytest.raises(ConfigError, match=r"4 runs of 40 updates.*--budget 42% or more"):
        design(plan, "global_batch_size", budget=0.3)
    assert design(plan, "global_batch_size", budget=0.42).num_steps == 40
    # As much as there is, in a run that is shorter than that.
    short = plan_of(num_steps=14, global_batch_size=16)
    assert design(short, "global_batch_size", budget=8.0).num_steps == 12
    with pytest.raises(ConfigError, match="3 updates are too few"):
        design(plan_of(num_steps=3, global_batch_size=16), "global_batch_size", budget=8.0)


def test_names_are_the_catalogues_or_refused_with_what_to_say_instead() -> None:
    assert searched_names(()) == ("learning_rate",)
    assert searched_names(("lr", "lora_rank")) == ("learning_rate", "lora_r")
    with pytest.raises(ConfigError, match="global_batch_size"):
        searched_names(("per_device_train_batch_size",))
    with pytest.raises(ConfigError, match="warmup_ratio"):
        searched_names(("warmup_steps",))
    with pytest.raises(ConfigError, match="learning_rate"):
        searched_names(("learning_rat",))
    with pytest.raises(ConfigError, match="trimtab study"):
        searched_names(("optim",))
    with pytest.raises(ConfigError, match="twice"):
        searched_names(("lr", "learning_rate"))


def test_a_name_that_has_no_effect_is_refused_with_the_plans_reason() -> None:
    with pytest.raises(ConfigError, match=r"lora_r has no effect.*not used: method is full"):
        design(plan_of(method="full"), "learning_rate", "lora_r")
    with pytest.raises(ConfigError, match=r"warmup_ratio has no effect.*constant has no warmup"):
        design(plan_of(lr_scheduler_type="constant"), "warmup_ratio")
    assert design(plan_of(lr_scheduler_type="constant_with_warmup"), "warmup_ratio").spaces


def test_a_warmup_starts_from_the_plans_share() -> None:
    plan = plan_of(warmup_steps=20)
    (space,) = design(plan, "warmup_ratio").spaces
    assert space.start == pytest.approx(plan.settings().warmup_steps / 400, rel=0.01)
    assert (space.low, space.high) == pytest.approx((0.0125, 0.2))


@pytest.mark.parametrize("budget", [0.3, 1.0, 2.4])
@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_a_run_of_values_without_a_place_is_in_the_budget(budget: float, schedule: str) -> None:
    made = design(plan_of(lr_scheduler_type=schedule), "weight_decay", budget=budget)
    assert made.has_reference
    num_long = made.num_trials + 1
    short = 0 if made.short_branches else made.num_short_trials * made.short_num_steps
    scored = 2 * (num_long + made.num_short_trials)
    assert num_long * made.num_steps + short + scored <= budget * 400
    with pytest.raises(ConfigError, match="too few for 5 runs"):
        design(plan_of(), "weight_decay", budget=0.1)


def test_the_plans_own_value_is_run_as_it_is() -> None:
    (space,) = design(plan_of(lora_r=12), "lora_r").spaces
    assert [space.value(each) for each in (12, 11, 3, 48)] == [12, 8, 4, 32]
    (space,) = design(plan_of(learning_rate=1.2345e-4)).spaces
    assert space.value(1.2345e-4) == 1.2345e-4 and space.value(1.2346e-4) == 1.23e-4


def test_a_share_is_searched_below_the_whole() -> None:
    (space,) = design(plan_of(max_steps=400, warmup_ratio=0.5), "warmup_ratio").spaces
    assert (space.low, space.high) == pytest.approx((0.125, 0.9), rel=0.02)
