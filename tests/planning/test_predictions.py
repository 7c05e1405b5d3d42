from __future__ import annotations

from typing import Any

import pytest
from planning.facts import CPU, LLAMA_135M, PLAIN_CPU, data, planned

from trimtab.planning.plan import Predictions
from trimtab.planning.timing import SECONDS_PER_LAYER, UTILISATION

LINEAR = 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)
LAYERS = 2 * LINEAR + 2 * 30 * 576 * 160
HEAD = 2 * 60 / 160 * 576 * 49_152
ADAPTER = 2 * 4_884_480


def predicted(**values: Any) -> Predictions:
    return planned(
        **({"device": PLAIN_CPU, "global_batch_size": 16, "eval_dataset": "none"} | values)
    ).predictions


STARTING_S = 30 * SECONDS_PER_LAYER["cpu"]


def seconds(flops_per_token: float, rate: float = 100e9) -> float:
    return STARTING_S + 16 * 160 * flops_per_token / (rate * UTILISATION["cpu"])


def test_counts() -> None:
    found = predicted()
    assert found.num_steps == 192
    assert found.tokens_per_step == 16 * 160


@pytest.mark.parametrize(
    ("values", "flops_per_token"),
    [
        ({"method": "full"}, 3 * LAYERS + 3 * HEAD),
        ({"method": "lora"}, 2 * LAYERS + 2 * HEAD + 3 * ADAPTER),
        (
            {"method": "lora", "activation_checkpointing": "full"},
            3 * LAYERS + 2 * HEAD + 4 * ADAPTER,
        ),
        ({"method": "full", "activation_checkpointing": 2}, 3.5 * LAYERS + 3 * HEAD),
    ],
)
def test_seconds_an_update(values: dict[str, Any], flops_per_token: float) -> None:
    found = predicted(**values, per_device_train_batch_size=16, memory_limit="60GB")
    assert found.step_time_s == pytest.approx(seconds(flops_per_token))
    assert found.total_time_s == pytest.approx(192 * seconds(flops_per_token))


def test_the_format_that_runs_is_the_one_timed() -> None:
    slow = predicted(device=CPU, precision="fp32").step_time_s
    fast = predicted(device=CPU, precision="bf16").step_time_s
    assert slow is not None
    assert fast is not None
    assert (slow - STARTING_S) / (fast - STARTING_S) == pytest.approx(3)


def test_evaluations_take_time() -> None:
    plan = planned(device=PLAIN_CPU, max_steps=60, eval_steps=25)
    found = plan.predictions
    assert found.step_time_s is not None
    assert found.total_time_s is not None
    # Before the run, at 25 and 50, and at the end.
    evaluation = 51 * 160 * (LAYERS + HEAD) / (100e9 * UTILISATION["cpu"])
    evaluation += 51 / 16 * STARTING_S / 3
    assert found.total_time_s - 60 * found.step_time_s == pytest.approx(4 * evaluation)


TWO_LENGTHS = {
    "rows": data(length_max=200, length_mean=150.0, length_quantiles=[100.0] * 101 + [200.0] * 100),
    "method": "full",
    "max_length": 256,
}


def seconds_of(num_positions: float, num_scored: float, *, num_rows: float = 16) -> float:
    layers = num_positions * (2 * LINEAR + 2 * 30 * 576 * num_positions)
    flops = 3 * (layers + 2 * 576 * 49_152 * num_scored)
    return num_rows * flops / (100e9 * UTILISATION["cpu"])


@pytest.mark.parametrize(
    ("layout", "num_positions", "num_scored"),
    [
        ({"padding": "none"}, 150, 60),
        ({"padding": "longest", "per_device_train_batch_size": 1}, 150, 60),
        ({"padding": "longest", "per_device_train_batch_size": 2}, 175, 60),
        ({"padding": "longest", "per_device_train_batch_size": 4}, 193.75, 60),
        (
            {"padding": "longest", "per_device_train_batch_size": 2, "pad_to_multiple_of": 128},
            0.25 * 128 + 0.75 * 256,
            60,
        ),
        ({"padding": "max_length", "per_device_train_batch_size": 1}, 256, 60),
        (
            {"padding": "max_length", "per_device_train_batch_size": 2, "pad_to_multiple_of": 192},
            384,
            60,
        ),
    ],
)
def test_what_pads_takes_time(
    layout: dict[str, Any], num_positions: float, num_scored: float
) -> None:
    found = predicted(**TWO_LENGTHS, **layout)
    starting_s = 16 / layout.get("per_device_train_batch_size", 16) * STARTING_S
    computing_s = seconds_of(num_positions, num_scored)
    assert found.step_time_s == pytest.approx(starting_s + computing_s, rel=0.01)
    assert found.tokens_per_step == 16 * 150


def test_padding_that_the_model_needs_takes_time_and_packing_does_not() -> None:
    leaky = LLAMA_135M | {"model.packing_refusal": "rows leak"}
    padded = predicted(**TWO_LENGTHS, model=leaky, per_device_train_batch_size=2)
    assert padded.step_time_s == pytest.approx(8 * STARTING_S + seconds_of(175, 60), rel=0.01)
    packed = predicted(**TWO_LENGTHS, packing=True)
    # 600 packed rows of 256 tokens hold the 1,024 examples.
    assert packed.step_time_s == pytest.approx(
        seconds_of(150, 60, num_rows=1) * 1024 / -(-600 // 16), rel=0.01
    )


def test_evaluation_is_padded_too() -> None:
    def evaluation_s(**values: Any) -> float:
        found = planned(device=PLAIN_CPU, max_steps=10, eval_steps=10, **TWO_LENGTHS, **values)
        assert found.predictions.step_time_s is not None
        assert found.predictions.total_time_s is not None
        return found.predictions.total_time_s - 10 * found.predictions.step_time_s

    joined, padded = evaluation_s(), evaluation_s(padding="max_length")
    # The layers compute 256 / 150 as many positions, the output head the same.
    assert 1.5 * joined < padded < 256 / 150 * joined
