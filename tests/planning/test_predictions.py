from __future__ import annotations

from typing import Any

import pytest
from planning.facts import CPU, PLAIN_CPU, planned

from trimtab.planning.plan import Predictions
from trimtab.planning.predictions import UTILISATION

LINEAR = 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)
LAYERS = 2 * LINEAR + 2 * 30 * 576 * 160
HEAD = 2 * 60 / 160 * 576 * 49_152
ADAPTER = 2 * 4_884_480


def predicted(**values: Any) -> Predictions:
    return planned(
        **({"device": PLAIN_CPU, "global_batch_size": 16, "eval_dataset": "none"} | values)
    ).predictions


def seconds(flops_per_token: float, rate: float = 100e9) -> float:
    return 16 * 160 * flops_per_token / (rate * UTILISATION["cpu"])


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
    found = predicted(**values)
    assert found.step_time_s == pytest.approx(seconds(flops_per_token))
    assert found.total_time_s == pytest.approx(192 * seconds(flops_per_token))


def test_the_format_that_runs_is_the_one_timed() -> None:
    slow = predicted(device=CPU, precision="fp32").step_time_s
    fast = predicted(device=CPU, precision="bf16").step_time_s
    assert slow is not None
    assert fast is not None
    assert slow / fast == pytest.approx(3)


def test_evaluations_take_time() -> None:
    plan = planned(device=PLAIN_CPU, max_steps=60, eval_steps=25)
    found = plan.predictions
    assert found.step_time_s is not None
    assert found.total_time_s is not None
    # Before the run, at 25 and 50, and at the end.
    evaluation = 51 * 160 * (LAYERS + HEAD) / (100e9 * UTILISATION["cpu"])
    assert found.total_time_s - 60 * found.step_time_s == pytest.approx(4 * evaluation)
