from __future__ import annotations

import math

import pytest

from trimtab.engine.guard import DIVERGENCE_WINDOW, MAX_SKIPS_IN_A_ROW, Guard
from trimtab.engine.precision import LossScale
from trimtab.engine.step import StepResult


def result(loss: float, *, applied: bool = True, grad_norm: float = 1.0) -> StepResult:
    return StepResult(loss, grad_norm, 10, 5, applied)


@pytest.mark.parametrize(
    ("loss", "grad_norm", "named"),
    [(math.nan, 1.0, "loss is nan"), (math.inf, 1.0, "loss is inf"), (1.0, math.nan, "gradient")],
)
def test_the_first_non_finite_number_stops_without_a_loss_scale(
    loss: float, grad_norm: float, named: str
) -> None:
    verdict = Guard().judge(result(loss, applied=False, grad_norm=grad_norm), "bf16", None)
    assert verdict.fault == "not finite"
    assert named in verdict.reason


def test_an_fp16_overflow_is_skipped_until_it_persists() -> None:
    guard, scale = Guard(), LossScale()
    for _ in range(MAX_SKIPS_IN_A_ROW - 1):
        scale.overflowed()
        assert guard.judge(result(1.0, applied=False), "fp16", scale).fault is None
    scale.overflowed()
    assert guard.judge(result(1.0, applied=False), "fp16", scale).fault == "overflow persisted"


def test_a_good_update_ends_the_row_of_skips() -> None:
    scale = LossScale()
    scale.overflowed()
    scale.succeeded()
    assert scale.num_skips_in_a_row == 0
    assert scale.scale == 2.0**15


def test_the_scale_grows_after_its_interval() -> None:
    scale = LossScale(scale=8.0, growth_interval=2)
    scale.succeeded()
    assert scale.scale == 8.0
    scale.succeeded()
    assert scale.scale == 16.0


def test_a_loss_of_exactly_zero_is_a_collapse() -> None:
    assert Guard().judge(result(0.0), "bf16", None).fault == "collapsed"
    assert Guard().judge(result(0.0), "fp32", None).fault is None


def test_divergence_by_the_stated_rule() -> None:
    guard = Guard()
    assert guard.judge(result(2.0), "fp32", None).fault is None
    verdicts = [guard.judge(result(9.0), "fp32", None).fault for _ in range(DIVERGENCE_WINDOW)]
    assert verdicts[-1] == "diverged"
    assert verdicts[0] is None


def test_noise_and_a_single_spike_are_no_divergence() -> None:
    guard = Guard()
    for loss in (2.0, 2.6, 1.9, 9.0, 2.1, 1.8, 2.4, 2.0):
        assert guard.judge(result(loss), "fp32", None).fault is None
