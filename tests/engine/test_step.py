from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest
import torch
from support.batches import LAYOUTS, ragged_rows
from support.jobs import tiny_job, weights_of

from trimtab.engine import step as step_module
from trimtab.engine.loop import Job
from trimtab.engine.precision import LossScale
from trimtab.engine.step import StepResult, training_step

DEVICE = torch.device("cpu")


def step(
    job: Job, *, loss_scale: LossScale | None = None, max_grad_norm: float = 0.0
) -> StepResult:
    return training_step(
        job.model,
        [LAYOUTS[0].collate(ragged_rows())],
        job.optimizer,
        learning_rate=1e-2,
        max_grad_norm=max_grad_norm,
        precision=job.settings.precision,
        device=DEVICE,
        loss_scale=loss_scale,
    )


def poison(job: Job) -> None:
    with torch.no_grad():
        next(job.model.parameters())[7, 0] = math.nan


def test_a_step_counts_real_and_trainable_tokens(tmp_path: Path) -> None:
    rows = ragged_rows()
    result = step(tiny_job(tmp_path))
    assert result.applied
    assert result.num_tokens == sum(row.num_tokens for row in rows)
    assert result.num_trainable_tokens == sum(row.num_trainable_tokens for row in rows)


def test_clipping_bounds_the_update_and_reports_the_norm_before_it(tmp_path: Path) -> None:
    moved = []
    for limit in (0.0, 0.01):
        job = tiny_job(tmp_path, optim="sgd")
        before = weights_of(job.model)
        result = step(job, max_grad_norm=limit)
        after = weights_of(job.model)
        moved.append(math.sqrt(sum(float((after[n] - before[n]).pow(2).sum()) for n in before)))
        assert result.grad_norm > 0.1
    assert moved[0] == pytest.approx(1e-2 * result.grad_norm, rel=1e-3)
    assert moved[1] == pytest.approx(1e-2 * 0.01, rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_non_finite_loss_never_reaches_the_weights(tmp_path: Path, precision: str) -> None:
    job = tiny_job(tmp_path, precision=precision)
    step(job)
    poison(job)
    before = weights_of(job.model)
    state_before = {
        key: value.clone()
        for key, value in job.optimizer.optimizers[0].state_dict()["state"][0].items()
    }
    scale = LossScale() if precision == "fp16" else None
    result = step(job, loss_scale=scale)
    assert not result.applied
    assert not math.isfinite(result.loss) or not math.isfinite(result.grad_norm)
    after = weights_of(job.model)
    assert all(torch.equal(before[n].nan_to_num(), after[n].nan_to_num()) for n in before)
    for key, value in job.optimizer.optimizers[0].state_dict()["state"][0].items():
        assert torch.equal(value, state_before[key])


def test_the_loss_scale_changes_nothing_but_itself(tmp_path: Path) -> None:
    plain, scaled = tiny_job(tmp_path), tiny_job(tmp_path)
    step(plain, max_grad_norm=1.0)
    scale = LossScale(scale=2.0**10)
    step(scaled, loss_scale=scale, max_grad_norm=1.0)
    for name, weight in weights_of(plain.model).items():
        assert torch.allclose(weight, weights_of(scaled.model)[name], atol=1e-6)
    assert scale.num_good_updates == 1


def test_an_overflow_lowers_the_scale(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, precision="fp16")
    scale = LossScale(scale=2.0**60)
    assert not step(job, loss_scale=scale).applied
    assert scale.scale == 2.0**59


def test_precisions_compute_in_their_own_format(tmp_path: Path) -> None:
    losses = {
        precision: step(tiny_job(tmp_path, precision=precision)).loss
        for precision in ("fp32", "bf16", "fp16")
    }
    assert len(set(losses.values())) == 3
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=2e-2)
    assert losses["fp16"] == pytest.approx(losses["fp32"], rel=5e-3)


def accumulated(job: Job, *, sizes: Sequence[int], loss_scale: float | None = None) -> StepResult:
    """A step over the ragged rows, divided into micro-batches of the given sizes."""
    rows = iter(ragged_rows())
    return training_step(
        job.model,
        [LAYOUTS[0].collate(list(islice(rows, size))) for size in sizes],
        job.optimizer,
        learning_rate=1e-2,
        max_grad_norm=1.0,
        precision=job.settings.precision,
        device=DEVICE,
        loss_scale=None if loss_scale is None else LossScale(scale=loss_scale),
    )


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("loss_scale", [None, 2.0**10])
def test_the_first_micro_batchs_gradient_is_its_own_mean(
    tmp_path: Path, method: str, loss_scale: float | None
) -> None:
    alone = accumulated(tiny_job(tmp_path, method=method), sizes=[3])
    result = accumulated(tiny_job(tmp_path, method=method), sizes=[3, 1, 4], loss_scale=loss_scale)
    assert alone.first_micro_batch_grad_norm is None
    assert result.first_micro_batch_grad_norm == pytest.approx(alone.grad_norm, rel=1e-5)
    assert result.grad_norm != pytest.approx(alone.grad_norm, rel=1e-2)


def test_measuring_the_first_gradient_leaves_the_update_bitwise_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, unmeasured = tiny_job(tmp_path), tiny_job(tmp_path)
    results = [accumulated(measured, sizes=[3, 1, 4]) for _ in range(3)]
    monkeypatch.setattr(step_module, "mean_gradient_norm", lambda *_: torch.zeros(()))
    others = [accumulated(unmeasured, sizes=[3, 1, 4]) for _ in range(3)]
    assert [one.grad_norm for one in results] == [one.grad_norm for one in others]
    weights = weights_of(unmeasured.model)
    for name, weight in weights_of(measured.model).items():
        assert torch.equal(weight, weights[name])
