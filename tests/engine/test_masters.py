"""fp32 masters: what is lost where weights are only held in 16 bits, and what is not with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.batches import LAYOUTS, ragged_rows
from support.faults import cuda_runs_out
from support.jobs import Memory, first_state, run_to_end, tiny_job
from torch import nn

from trimtab.engine import masters
from trimtab.engine.loop import Job, run_updates
from trimtab.engine.masters import take_masters
from trimtab.engine.step import StepResult, training_step
from trimtab.engine.stops import RanOutOfMemory


def step(job: Job, *, sizes: tuple[int, ...] = (4,), learning_rate: float = 1e-2) -> StepResult:
    rows = iter(ragged_rows())
    batches = [LAYOUTS[0].collate([next(rows) for _ in range(size)]) for size in sizes]
    return training_step(
        job.model,
        batches,
        job.optimizer,
        learning_rate=learning_rate,
        max_grad_norm=1.0,
        precision=job.settings.precision,
        device=job.device,
    )


@pytest.mark.parametrize(
    ("method", "precision", "in_the_model"),
    [
        ("full", "bf16", {torch.bfloat16}),
        ("full", "fp16", {torch.float32}),
        ("full", "fp32", {torch.float32}),
        ("lora", "bf16", {torch.float32}),
    ],
)
def test_what_is_moved_is_fp32_in_every_precision(
    method: str, precision: str, in_the_model: set[torch.dtype], tmp_path: Path
) -> None:
    job = tiny_job(tmp_path, method=method, precision=precision)
    step(job)
    assert {weight.dtype for weight in job.optimizer.parameters} == {torch.float32}
    trained = {name: each for name, each in job.model.named_parameters() if each.requires_grad}
    assert {weight.dtype for weight in trained.values()} == in_the_model
    assert job.optimizer.weights.keys() == trained.keys()


def test_updates_too_small_for_16_bits_add_up(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, method="full", precision="bf16", optim="sgd")
    name = next(name for name in job.optimizer.weights if "q_proj" in name)
    held = job.model.get_parameter(name)
    first = held.detach().clone()
    moved = []
    for _ in range(60):
        step(job, learning_rate=2e-4)
        moved.append(not torch.equal(held, first))
    assert moved.index(True) > 0
    assert torch.equal(held, job.optimizer.weights[name].detach().bfloat16())


def test_gradients_of_micro_batches_add_up_in_fp32(tmp_path: Path) -> None:
    whole, divided = (
        tiny_job(tmp_path, method="full", precision="bf16", optim="sgd") for _ in range(2)
    )
    one, other = step(whole, sizes=(4,)), step(divided, sizes=(1, 1, 1, 1))
    assert other.loss == pytest.approx(one.loss, rel=1e-3)
    assert other.grad_norm == pytest.approx(one.grad_norm, rel=2e-2)
    assert all(weight.grad is None for weight in divided.model.parameters())


def test_bf16_training_follows_fp32(tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        job = tiny_job(tmp_path, method="full", precision=precision)
        losses[precision] = [step(job).loss for _ in range(20)]
    assert losses["fp32"][-1] < 0.9 * losses["fp32"][0]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=2e-2)


@pytest.mark.parametrize(("failing", "num_before"), [("float", 0), ("add_", 1)])
def test_a_gradient_whose_handing_over_fails_is_not_left_on_the_weight(
    monkeypatch: pytest.MonkeyPatch, failing: str, num_before: int
) -> None:
    model = nn.Linear(4, 4, bias=False)
    take_masters(dict(model.named_parameters()), torch.bfloat16)
    inputs = torch.ones(1, 4, dtype=torch.bfloat16)
    for _ in range(num_before):
        model(inputs).sum().backward()
    with monkeypatch.context() as fault:
        fault.setattr(torch.Tensor, failing, lambda *_: cuda_runs_out())
        with pytest.raises(torch.OutOfMemoryError):
            model(inputs).sum().backward()
    assert model.weight.grad is None


def test_memory_that_runs_out_between_two_gradients_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"method": "full", "precision": "bf16", "num_train_steps": 3}
    _, undisturbed = run_to_end(tiny_job(tmp_path / "undisturbed", **changes))
    handing_over, num_handed_over = masters._handing_its_gradient_to, [0]

    def failing_once(master: nn.Parameter) -> object:
        hand_over = handing_over(master)

        def hook(weight: torch.Tensor) -> None:
            num_handed_over[0] += 1
            if num_handed_over[0] == 5:
                cuda_runs_out()
            hand_over(weight)

        return hook

    monkeypatch.setattr(masters, "_handing_its_gradient_to", failing_once)
    job = tiny_job(tmp_path / "disturbed", **changes)
    state, memory = first_state(job), Memory()
    with pytest.raises(RanOutOfMemory):
        run_updates(job, state, memory, lambda: False)
    assert all(weight.grad is None for weight in job.model.parameters())
    run_updates(job, state, memory, lambda: False)
    assert [each.grad_norm for each in memory.updates] == [
        each.grad_norm for each in undisturbed.updates
    ]
    assert [each.loss for each in memory.updates] == [each.loss for each in undisturbed.updates]
