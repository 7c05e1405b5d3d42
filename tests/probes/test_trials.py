from __future__ import annotations

from typing import Any

import pytest
import torch
from support.benches import standing, tiny_batch, tiny_bench
from transformers.modeling_layers import GradientCheckpointingLayer

from trimtab.engine import step
from trimtab.engine.memory import peak_memory_bytes
from trimtab.probes import trials
from trimtab.probes.bench import finite_update
from trimtab.probes.resident import begin_peak, held_bytes
from trimtab.probes.trials import run_trial

CPU = torch.device("cpu")


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("optim", ["adamw", "adam", "sgd", "adafactor", "muon"])
def test_a_trial_leaves_everything_as_it_was(method: str, optim: str) -> None:
    bench = tiny_bench(
        method=method, optim=optim, lora_dropout=0.1, weight_decay=0.1, precision="bf16"
    )
    before = standing(bench)
    run_trial(bench, tiny_batch(), activation_checkpointing="full", num_micro_batches=2)
    assert standing(bench) == before


def test_a_trial_is_two_training_steps_with_their_optimizer_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = tiny_bench()
    seen: list[tuple[int, int, bool]] = []

    def watched(watched_bench: Any, micro_batches: Any, **arguments: Any) -> Any:
        result = finite_update(watched_bench, micro_batches, **arguments)
        state = bench.optimizer.optimizers[0].state
        layers = [
            module.gradient_checkpointing
            for module in bench.model.modules()
            if isinstance(module, GradientCheckpointingLayer)
        ]
        seen.append((len(micro_batches), len(state), all(layers)))
        return result

    monkeypatch.setattr(trials, "finite_update", watched)
    outcome = run_trial(bench, tiny_batch(), activation_checkpointing="full", num_micro_batches=3)
    num_parameters = len(bench.optimizer.parameters)
    assert seen == [(3, num_parameters, True)] * 2
    assert len(outcome.update_s) == 2
    assert all(seconds > 0 for seconds in outcome.update_s)
    assert outcome.peak_bytes > 0


def test_fp16_is_tried_at_a_scale_that_it_can_take(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = tiny_bench(precision="fp16")
    scales = []
    real = step.summed_loss

    def overflowing(model: Any, batch: Any) -> torch.Tensor:
        loss = real(model, batch)
        loss.register_hook(lambda slope: scales.append(float(slope)))
        return loss * 1e4

    monkeypatch.setattr(step, "summed_loss", overflowing)
    run_trial(bench, tiny_batch(), activation_checkpointing="off", num_micro_batches=1)
    assert scales[-1] == scales[-2] < scales[0]


def test_the_peak_is_of_what_came_since_it_was_begun() -> None:
    if not begin_peak(CPU):
        pytest.skip("this system cannot begin a peak anew")
    size = 200 << 20
    torch.ones(size, dtype=torch.uint8)
    with_tensor = peak_memory_bytes(CPU)
    assert with_tensor >= size
    assert begin_peak(CPU)
    assert peak_memory_bytes(CPU) <= with_tensor - size // 2
    assert held_bytes(CPU) <= with_tensor
