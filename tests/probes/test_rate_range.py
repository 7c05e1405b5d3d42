from __future__ import annotations

import math

import pytest
import torch
from support.benches import standing, tiny_batch, tiny_bench

from trimtab.engine.step import training_step
from trimtab.probes import rate_range
from trimtab.probes.rate_range import range_outcomes

RATES = (1e-4, 1e-3, 1e-2)


def test_losses_are_those_after_updates_on_the_same_rows() -> None:
    batch = tiny_batch()
    outcomes = list(range_outcomes(tiny_bench(), [batch], RATES))
    other = tiny_bench()
    other.model.train()
    losses = [
        training_step(
            other.model,
            [batch],
            other.optimizer,
            learning_rate=rate,
            max_grad_norm=1.0,
            precision="fp32",
            device=torch.device("cpu"),
        ).loss
        for rate in (*RATES, 0.0)
    ]
    assert [outcome.learning_rate for outcome in outcomes] == list(RATES)
    assert [outcome.loss for outcome in outcomes] == losses[1:]
    assert not any(outcome.diverged for outcome in outcomes)
    assert losses[-1] < losses[0]


def test_it_stops_at_the_first_rate_that_does_harm() -> None:
    rates = (1e-3, 30.0, 100.0, 300.0)
    outcomes = list(range_outcomes(tiny_bench(), [tiny_batch()], rates))
    assert [outcome.diverged for outcome in outcomes] == [False, True]
    assert outcomes[-1].learning_rate == 30.0


def test_a_loss_that_is_no_number_is_divergence() -> None:
    bench = tiny_bench()
    with torch.no_grad():
        bench.optimizer.parameters[0].fill_(torch.inf)
    (outcome,) = range_outcomes(bench, [tiny_batch()], RATES)
    assert (outcome.learning_rate, outcome.diverged) == (RATES[0], True)
    assert not math.isfinite(outcome.loss)


def test_weights_are_put_back_even_when_it_is_left_half_way() -> None:
    bench = tiny_bench(method="lora", lora_dropout=0.1)
    before = standing(bench)
    list(range_outcomes(bench, [tiny_batch()], RATES))
    assert standing(bench) == before
    unfinished = range_outcomes(bench, [tiny_batch()], RATES)
    next(unfinished)
    unfinished.close()
    assert standing(bench) == before


@pytest.mark.parametrize(("loss", "is_harm"), [(1.9, False), (2.02, False), (2.2, True)])
def test_rounding_is_no_harm(loss: float, is_harm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = tiny_bench()
    losses = iter([2.0, loss])
    monkeypatch.setattr(rate_range, "_update", lambda *_: (next(losses), True))
    first = next(iter(range_outcomes(bench, [tiny_batch()], RATES)))
    assert (first.loss, first.diverged) == (loss, is_harm)
