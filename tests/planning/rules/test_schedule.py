"""Guide rows 9 and 10: schedulers and warmup."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from planning.facts import CARD_80GB, planned

from trimtab.errors import ConfigError
from trimtab.hyperparameters.config import Scheduler
from trimtab.hyperparameters.layers import resolve
from trimtab.planning.decision import Decision

GOOD: dict[str, dict[str, Any]] = {
    "linear": {},
    "cosine": {"num_cycles": 0.5},
    "constant": {},
    "constant_with_warmup": {},
    "cosine_with_restarts": {"num_cycles": 2},
    "cosine_with_min_lr": {"min_lr": 1e-5, "num_cycles": 0.5},
    "polynomial": {"lr_end": 1e-6, "power": 2.0},
    "inverse_sqrt": {"timescale": 100},
    "warmup_stable_decay": {
        "num_decay_steps": 20,
        "warmup_type": "cosine",
        "decay_type": "1-sqrt",
        "min_lr_ratio": 0.1,
        "num_cycles": 0.5,
    },
}


def of_run(num_steps: int, name: str = "warmup_steps", **values: Any) -> Decision:
    return planned(max_steps=num_steps, device=CARD_80GB, **values).decision(name)


def test_every_scheduler_is_tried() -> None:
    assert set(GOOD) == set(get_args(Scheduler))


@pytest.mark.parametrize("scheduler", GOOD)
def test_scheduler_and_arguments_reach_the_settings(scheduler: str) -> None:
    plan = planned(
        max_steps=200, lr_scheduler_type=scheduler, lr_scheduler_kwargs=dict(GOOD[scheduler])
    )
    assert plan.settings().lr_scheduler_type == scheduler
    assert plan.settings().lr_scheduler_kwargs == GOOD[scheduler]
    assert plan.decision("lr_scheduler_type").origin == "user"


@pytest.mark.parametrize("with_arguments", [False, True])
@pytest.mark.parametrize("scheduler", GOOD)
def test_transformers_takes_what_is_decided(scheduler: str, with_arguments: bool) -> None:
    from trimtab.engine.schedule import make_schedule

    kwargs = dict(GOOD[scheduler]) if with_arguments else {}
    plan = planned(max_steps=200, lr_scheduler_type=scheduler, lr_scheduler_kwargs=kwargs)
    rates = make_schedule(plan.settings()).rates
    assert len(rates) == 200
    assert max(rates) == pytest.approx(plan.settings().learning_rate)
    assert min(rates) >= 0


def test_linear_is_the_default() -> None:
    decision = planned().decision("lr_scheduler_type")
    assert (decision.value, decision.origin) == ("linear", "default")
    assert "2502.15938" in decision.because


@pytest.mark.parametrize(
    ("scheduler", "kwargs"),
    [
        ("cosine_with_restarts", {"num_cycles": 1}),
        ("cosine_with_min_lr", {"min_lr": 0}),
        ("cosine_with_min_lr", {"min_lr_rate": 1}),
        ("polynomial", {"lr_end": 0}),
        ("warmup_stable_decay", {"num_decay_steps": 0, "min_lr_ratio": 0}),
        ("warmup_stable_decay", {"num_decay_steps": 190}),
    ],
)
def test_the_ends_of_the_domains_are_taken(scheduler: str, kwargs: dict[str, Any]) -> None:
    decided = of_run(
        200, "lr_scheduler_kwargs", lr_scheduler_type=scheduler, lr_scheduler_kwargs=kwargs
    )
    assert decided.value == kwargs


@pytest.mark.parametrize("scheduler", GOOD)
def test_an_unknown_argument_is_refused_with_the_known(scheduler: str) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(lr_scheduler_type=scheduler, lr_scheduler_kwargs={"gamma": 0.9})
    assert f"gamma is no argument of {scheduler}" in caught.value.what
    assert caught.value.hint is not None
    for name in GOOD[scheduler]:
        assert name in caught.value.hint


@pytest.mark.parametrize(
    ("scheduler", "kwargs"),
    [
        ("cosine", {"num_cycles": -1}),
        ("cosine", {"num_cycles": "half"}),
        ("cosine_with_restarts", {"num_cycles": 1.5}),
        ("cosine_with_restarts", {"num_cycles": True}),
        ("cosine_with_min_lr", {"min_lr_rate": 1.5}),
        ("cosine_with_min_lr", {"min_lr": 1e-5, "min_lr_rate": 0.1}),
        ("cosine_with_min_lr", {"min_lr": 1.0}),
        ("polynomial", {"power": 0}),
        ("polynomial", {"lr_end": 1.0}),
        ("inverse_sqrt", {"timescale": 0}),
        ("warmup_stable_decay", {"decay_type": "square"}),
        ("warmup_stable_decay", {"num_decay_steps": 0.1}),
        ("warmup_stable_decay", {"num_decay_steps": 195}),
        ("warmup_stable_decay", {"num_stable_steps": 10}),
    ],
)
def test_wrong_arguments_are_refused(scheduler: str, kwargs: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(kwargs))):
        planned(max_steps=200, lr_scheduler_type=scheduler, lr_scheduler_kwargs=kwargs)


def test_a_rate_under_polynomials_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="lr_end"):
        planned(max_steps=200, lr_scheduler_type="polynomial", learning_rate=1e-8)


def test_polynomial_needs_updates_after_warmup() -> None:
    with pytest.raises(ConfigError, match="50 of 50"):
        planned(max_steps=50, lr_scheduler_type="polynomial", warmup_steps=50)


def test_required_arguments_are_given_by_rule() -> None:
    lowest = of_run(200, "lr_scheduler_kwargs", lr_scheduler_type="cosine_with_min_lr")
    assert (lowest.value, lowest.origin) == ({"min_lr_rate": 0.1}, "rule")
    decay = of_run(205, "lr_scheduler_kwargs", lr_scheduler_type="warmup_stable_decay")
    assert (decay.value, decay.origin) == ({"num_decay_steps": 21}, "rule")
    mixed = of_run(
        200,
        "lr_scheduler_kwargs",
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"num_cycles": 0.4},
    )
    assert (mixed.value, mixed.origin) == ({"num_cycles": 0.4, "min_lr_rate": 0.1}, "user")
    assert "min_lr_rate" in mixed.because


def test_decay_by_rule_leaves_room_for_warmup() -> None:
    kwargs = of_run(
        20, "lr_scheduler_kwargs", lr_scheduler_type="warmup_stable_decay", warmup_steps=19
    )
    assert kwargs.value == {"num_decay_steps": 1}


def test_schedule_free_needs_no_schedule() -> None:
    free = planned(optim="adamw_schedule_free").decision("lr_scheduler_type")
    assert (free.value, free.origin) == ("constant_with_warmup", "rule")
    asked = planned(optim="adamw_schedule_free", lr_scheduler_type="cosine")
    assert asked.decision("lr_scheduler_type").value == "cosine"
    assert any("adamw_schedule_free" in warning for warning in asked.warnings)


# Guide row 10: warmup.


@pytest.mark.parametrize(
    ("num_steps", "expected"),
    [
        (5, 0),
        (19, 1),
        (60, 6),  # a tenth wins over the least of 10
        (99, 9),
        (100, 10),
        (300, 10),
        (333, 10),
        (334, 11),
        (1000, 30),
        (10_000, 300),
    ],
)
def test_auto_warmup(num_steps: int, expected: int) -> None:
    decision = of_run(num_steps)
    assert (decision.value, decision.origin) == (expected, "rule")
    assert f"{num_steps:,}" in decision.because
    assert ("never over 10%" in decision.because) is (num_steps < 100)
    assert ("at least 10" in decision.because) is (num_steps <= 300)
    others = [one.value for one in decision.alternatives]
    assert others == [steps for steps in dict.fromkeys((0, num_steps // 10)) if steps != expected]


def test_the_default_curve_states_its_limits_and_its_rival() -> None:
    default = of_run(100, "lr_scheduler_type")
    assert default.limits is not None and "pretraining" in default.limits
    assert [one.value for one in default.alternatives] == ["cosine"]
    asked = of_run(100, "lr_scheduler_type", lr_scheduler_type="cosine")
    assert (asked.limits, asked.alternatives) == (None, ())


@pytest.mark.parametrize(
    ("asked", "num_steps", "expected"),
    [(7, 200, 7), (0, 200, 0), (0.1, 10_000, 1000), (0.07, 100, 7), (0.03, 110, 4)],
)
def test_warmup_as_a_number_or_a_share(asked: float, num_steps: int, expected: int) -> None:
    decision = of_run(num_steps, warmup_steps=asked)
    assert (decision.value, decision.origin) == (expected, "user")


def test_warmup_ratio() -> None:
    # The guide's own example: 10% of 10,000 steps.
    steps = of_run(10_000, warmup_ratio=0.1)
    assert (steps.value, steps.origin) == (1000, "rule")
    assert "warmup_ratio 0.1" in steps.because
    ratio = of_run(10_000, "warmup_ratio", warmup_ratio=0.1)
    assert (ratio.value, ratio.origin) == (0.1, "user")
    assert of_run(10_000, "warmup_ratio").value is None
    assert of_run(10_000, warmup_ratio=0.0).value == 0


def test_the_later_layer_of_warmup_wins(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("model: m\ndataset: d\nmax_steps: 100\nwarmup_steps: 50\n")
    plan = planned(resolve(file=file, options=[("warmup_ratio", "0.05")]))
    assert plan.settings().warmup_steps == 5
    lost = f"wins over warmup_steps 50 ({file}:4: warmup_ratio is set on the command line)"
    assert plan.decision("warmup_steps").because.endswith(lost)
    assert plan.decision("warmup_ratio").because.endswith(lost)
    file.write_text("model: m\ndataset: d\nmax_steps: 100\nwarmup_ratio: 0.5\n")
    plan = planned(resolve(file=file, options=[("warmup_steps", "3")]))
    assert plan.settings().warmup_steps == 3
    lost = f"wins over warmup_ratio 0.5 ({file}:4: warmup_steps is set on the command line)"
    assert plan.decision("warmup_steps").because.endswith(lost)


def test_constant_has_no_warmup() -> None:
    plan = planned(lr_scheduler_type="constant")
    assert plan.settings().warmup_steps == 0
    assert plan.warnings == ()
    for values in ({"warmup_steps": 5}, {"warmup_ratio": 0.1}):
        plan = planned(lr_scheduler_type="constant", **values)
        assert plan.settings().warmup_steps == 0
        (warning,) = plan.warnings
        assert warning.startswith(f"{next(iter(values))} has no effect")
    assert of_run(200, lr_scheduler_type="constant_with_warmup", warmup_steps=5).value == 5


@pytest.mark.parametrize(("warmup", "is_told"), [(100, True), (10, True), (9, False)])
def test_warmup_longer_than_the_run_is_told(warmup: int, is_told: bool) -> None:
    plan = planned(max_steps=10, warmup_steps=warmup)
    assert plan.settings().warmup_steps == warmup
    assert any("never reaches" in warning for warning in plan.warnings) is is_told
