from __future__ import annotations

import math

import pytest

from trimtab.engine.guard import (
    DIVERGENCE_WINDOW,
    MAX_SKIPS_IN_A_ROW,
    MAX_SPIKES_IN_A_ROW,
    MIN_SPIKE_HISTORY,
    RECORD_MARGIN_NATS,
    SPIKE_MARGIN_NATS,
    SPIKE_WINDOW,
    Guard,
    Verdict,
    judge_held_out_loss,
)
from trimtab.engine.precision import LossScale
from trimtab.engine.step import StepResult
from trimtab.hyperparameters.config import Precision


def judged(
    guard: Guard,
    loss: float,
    *,
    grad_norm: float = 1.0,
    precision: Precision = "fp32",
    loss_scale: LossScale | None = None,
    num_examples: int = 8,
    num_trainable_tokens: int = 64,
) -> Verdict:
    """The verdict on an update that is applied where its numbers are finite and accepted."""
    watch = guard.watching(
        precision, num_examples=num_examples, num_trainable_tokens=num_trainable_tokens
    )
    is_finite = math.isfinite(loss) and math.isfinite(grad_norm)
    applied = is_finite and watch.accepts_loss(loss)
    result = StepResult(loss, grad_norm, 100, num_trainable_tokens, applied)
    return watch.judge(result, loss_scale)


def steady(loss: float = 1.5, ripple: float = 0.1) -> Guard:
    """A guard after as many updates as it needs to know a spike."""
    guard = Guard()
    for number in range(MIN_SPIKE_HISTORY):
        assert judged(guard, loss + ripple * (-1) ** number).fault is None
    return guard


@pytest.mark.parametrize(
    ("loss", "grad_norm", "named"),
    [(math.nan, 1.0, "loss is nan"), (math.inf, 1.0, "loss is inf"), (1.0, math.nan, "gradient")],
)
def test_the_first_non_finite_number_stops_without_a_loss_scale(
    loss: float, grad_norm: float, named: str
) -> None:
    verdict = judged(Guard(), loss, grad_norm=grad_norm, precision="bf16")
    assert verdict.fault == "not finite"
    assert named in verdict.reason


def test_an_fp16_gradient_that_overflows_is_skipped_until_it_persists() -> None:
    guard, scale = Guard(), LossScale()
    arguments = {"grad_norm": math.inf, "precision": "fp16", "loss_scale": scale}
    for _ in range(MAX_SKIPS_IN_A_ROW - 1):
        scale.overflowed()
        assert judged(guard, 1.0, **arguments).fault is None
    scale.overflowed()
    assert judged(guard, 1.0, **arguments).fault == "overflow persisted"


def test_an_fp16_loss_that_is_not_finite_is_no_matter_of_the_scale() -> None:
    scale = LossScale()
    scale.overflowed()
    for loss in (math.nan, math.inf):
        assert judged(Guard(), loss, precision="fp16", loss_scale=scale).fault == "not finite"


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


def test_a_loss_of_exactly_zero_is_a_collapse_in_16_bits_and_is_not_applied() -> None:
    guard = Guard()
    assert judged(guard, 0.0, precision="bf16").fault == "collapsed"
    assert not guard.recent
    assert judged(guard, 0.0, precision="fp32").fault is None
    assert judge_held_out_loss(0.0, "fp16").fault == "collapsed"
    assert judge_held_out_loss(0.0, "fp32").fault is None


def test_divergence_by_the_stated_rule() -> None:
    guard = Guard()
    assert judged(guard, 2.0).fault is None
    verdicts = [judged(guard, 9.0).fault for _ in range(DIVERGENCE_WINDOW)]
    assert verdicts[-1] == "diverged"
    assert verdicts[0] is None


def test_noise_and_an_early_jump_are_no_divergence() -> None:
    guard = Guard()
    for loss in (2.0, 2.6, 1.9, 9.0, 2.1, 1.8, 2.4, 2.0):
        assert judged(guard, loss).fault is None


def test_a_spike_is_over_the_median_by_the_margin() -> None:
    guard = steady(1.5)
    before = list(guard.recent)
    assert judged(guard, 1.5 + SPIKE_MARGIN_NATS + 0.01).fault == "loss spike"
    assert list(guard.recent) == before
    assert judged(guard, 1.5 + SPIKE_MARGIN_NATS - 0.01).fault is None


def test_a_noisy_curve_and_a_small_update_have_a_wider_margin() -> None:
    assert judged(steady(6.0, ripple=1.5), 6.0 + 3 * SPIKE_MARGIN_NATS).fault is None
    few_rows = {"num_examples": 2, "num_trainable_tokens": 64}
    assert judged(steady(), 1.5 + 1.9 * SPIKE_MARGIN_NATS, **few_rows).fault is None
    assert judged(steady(), 1.5 + 2.1 * SPIKE_MARGIN_NATS, **few_rows).fault == "loss spike"
    few_tokens = {"num_examples": 8, "num_trainable_tokens": 4}
    assert judged(steady(), 1.5 + 3.9 * SPIKE_MARGIN_NATS, **few_tokens).fault is None


def test_a_loss_that_came_before_comes_again() -> None:
    """A hard row early on, long out of the window."""
    guard = Guard()
    assert judged(guard, 5.0).fault is None
    for _ in range(2 * SPIKE_WINDOW):
        assert judged(guard, 0.4).fault is None
    assert judged(guard, 5.0 + RECORD_MARGIN_NATS - 0.01).fault is None
    guard = steady(0.4)
    assert judged(guard, 5.0).fault == "loss spike"


def test_spikes_in_a_row_are_no_matter_of_a_batch() -> None:
    guard = steady()
    verdicts = [judged(guard, 9.0).fault for _ in range(MAX_SPIKES_IN_A_ROW)]
    assert verdicts == ["loss spike"] * (MAX_SPIKES_IN_A_ROW - 1) + ["diverged"]
    guard = steady()
    for _ in range(4):
        assert judged(guard, 9.0).fault == "loss spike"
        assert judged(guard, 1.5).fault is None
