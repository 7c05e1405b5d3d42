"""The figures' data: measured points stay measured, and a smoothed line only lies over them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from support.run_folders import DATA, evaluations, updates

from trimtab.report.figures import (
    Curve,
    grad_norm_curve,
    learning_rate_curve,
    length_bars,
    loss_curve,
    smoothed_loss,
    thinned,
)


def test_the_loss_curve_shows_every_update_and_every_held_out_loss() -> None:
    records = updates()
    curve = loss_curve(records, evaluations(), 45)
    assert curve is not None
    assert curve.train == Curve(
        tuple(float(one.step) for one in records), tuple(one.loss for one in records)
    )
    assert curve.held_out == Curve((0, 15, 30, 45, 60), (2.0, 1.5, 1.2, 1.0, 1.1))
    assert curve.kept_step == 45
    assert curve.num_not_finite == 0


def test_losses_that_are_not_finite_are_counted_and_not_drawn() -> None:
    records = updates(5)
    records[2] = replace(records[2], loss=math.nan)
    held_out = [replace(one, eval_loss=math.inf) for one in evaluations()[:1]]
    curve = loss_curve(records, held_out, None)
    assert curve is not None
    assert curve.train.x == (1, 2, 4, 5)
    assert curve.num_not_finite == 2
    assert loss_curve([replace(records[2])], held_out, None) is None
    assert loss_curve([], [], None) is None


def test_smoothing_weights_losses_by_their_tokens() -> None:
    records = [
        replace(one, loss=1.0 if index % 2 else 4.0, num_trainable_tokens=100 if index % 2 else 200)
        for index, one in enumerate(updates(40))
    ]
    smoothed = smoothed_loss(records)
    assert smoothed.x == tuple(range(1, 41))
    # A window of three: 4, 1, 4 of 200, 100, 200 tokens, then 1, 4, 1 of 100, 200, 100.
    assert smoothed.y[2] == pytest.approx((1 * 100 + 4 * 200 + 1 * 100) / 400)
    assert smoothed.y[3] == pytest.approx((4 * 200 + 1 * 100 + 4 * 200) / 500)


def test_smoothing_keeps_a_constant_and_a_line_and_the_measured_ends() -> None:
    line = [replace(one, loss=10 - one.step / 10, num_trainable_tokens=7) for one in updates(60)]
    assert smoothed_loss(line).y == pytest.approx([one.loss for one in line])
    rippled = updates(60)
    smoothed = smoothed_loss(rippled)
    assert smoothed.y[0] == pytest.approx(rippled[0].loss)
    assert smoothed.y[-1] == pytest.approx(rippled[-1].loss)
    assert smoothed.y[30] != pytest.approx(rippled[30].loss)


def test_short_runs_and_runs_without_tokens_are_not_smoothed() -> None:
    assert len(smoothed_loss(updates(19))) == 0
    assert len(smoothed_loss(updates(20))) == 20
    assert len(smoothed_loss([replace(one, num_trainable_tokens=0) for one in updates()])) == 0


def test_thinning_keeps_the_order_and_every_peak() -> None:
    y = [math.sin(i / 500) for i in range(10_000)]
    y[4321], y[8765] = 50.0, -50.0
    curve = Curve(tuple(float(i) for i in range(10_000)), tuple(y))
    few = thinned(curve, 2000)
    assert len(few) <= 2000
    assert list(few.x) == sorted(few.x)
    assert set(zip(few.x, few.y, strict=True)) <= set(zip(curve.x, curve.y, strict=True))
    assert {50.0, -50.0} <= set(few.y)
    assert thinned(curve, 10_000) is curve


def test_rates_and_norms_are_of_the_updates_that_were_made() -> None:
    records = updates(3)
    rates = learning_rate_curve(records)
    norms = grad_norm_curve(records)
    assert rates == Curve((1, 2, 3), tuple(one.learning_rate for one in records))
    assert norms == Curve((1, 2, 3), tuple(one.grad_norm for one in records))
    assert learning_rate_curve([]) is None
    assert grad_norm_curve([replace(records[0], grad_norm=math.nan)]) is None


def test_lengths_are_the_records_own_bins() -> None:
    bars = length_bars(DATA, 512)
    assert bars is not None
    assert (bars.edges, bars.counts) == (DATA.histogram_edges, DATA.histogram_counts)
    assert bars.max_length == 512
    empty = replace(DATA, histogram_edges=(0, 1), histogram_counts=(0,))
    assert length_bars(empty, None) is None
