from __future__ import annotations

from typing import Any

import pytest
from planning.facts import CPU, LLAMA_135M, as_facts

from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.timing import UTILISATION, UpdateTime, Work, update_time

RATE = CPU["device.matmul_flops_per_s.bf16"] * UTILISATION["cpu"]  # type: ignore[operator]


def size(num_tokens: int) -> MicroBatchSize:
    return MicroBatchSize(num_tokens, num_tokens, num_tokens * 100)


def timed(points: list[dict[str, Any]] | None = None, **known: Any) -> UpdateTime:
    facts = as_facts(CPU | LLAMA_135M | ({"trials.points": points} if points else {}) | known)
    found = update_time(facts, Work(facts, "lora", "bf16", 4_884_480))
    assert found is not None
    return found


def point(
    num_tokens: int, seconds: float, checkpointing: str = "off", num_micro_batches: int = 1
) -> dict[str, Any]:
    shape = size(num_tokens)
    return {
        "activation_checkpointing": checkpointing,
        "num_rows": num_tokens // 100,
        "num_micro_batches": num_micro_batches,
        "num_tokens": shape.num_tokens,
        "num_scored": shape.num_scored,
        "sum_length_squared": shape.sum_length_squared,
        "update_s": [9.0, seconds],
        "peak_bytes": 1,
    }


def test_without_a_rate_no_time_is_known() -> None:
    facts = as_facts({key: value for key, value in CPU.items() if "flops" not in key} | LLAMA_135M)
    assert update_time(facts, Work(facts, "lora", "bf16", 1)) is None


def test_arithmetic_is_operations_over_the_rate() -> None:
    found = timed()
    small, large = (found.update_s(size(tokens), 1, "off") for tokens in (100, 200))
    flops = [found.work.training_flops(size(tokens), "off") for tokens in (100, 200)]
    assert large - small == pytest.approx((flops[1] - flops[0]) / RATE)
    assert found.update_s(size(100), 2, "off") == pytest.approx(2 * small)


def test_trials_put_the_rate_right_and_first_updates_do_not_count() -> None:
    found = timed([point(200, 1.0), point(800, 3.7), point(200, 1.9, num_micro_batches=2)])
    assert found.update_s(size(200), 1, "off") == pytest.approx(1.0, rel=0.02)
    assert found.update_s(size(800), 1, "off") == pytest.approx(3.7, rel=0.02)
    assert found.update_s(size(800), 4, "off") == pytest.approx(14.5, rel=0.03)
    assert found.update_s(size(1600), 1, "off") == pytest.approx(7.3, rel=0.03)


def test_trials_that_say_nothing_of_a_slope_leave_it_as_expected() -> None:
    # As a machine measures that other work takes away: the smaller update was the slower.
    found = timed([point(50, 1.0), point(100, 0.05, num_micro_batches=2)])
    assert found.update_s(size(800), 4, "off") > found.update_s(size(800), 1, "off") > 0


def test_each_checkpointing_has_its_own_rate() -> None:
    found = timed([point(400, 2.0), point(400, 3.0, "full")])
    assert found.update_s(size(400), 1, "off") == pytest.approx(2.0)
    assert found.update_s(size(400), 1, "full") == pytest.approx(3.0)
    halfway = found.update_s(size(400), 1, 2)
    assert 2.0 < halfway < 3.0


def test_the_optimizer_is_expected_to_move_its_bytes() -> None:
    slow = timed(**{"device.memory_bandwidth_bytes_per_s": 1e9})
    free = timed()
    moved = slow.update_s(size(100), 1, "off") - free.update_s(size(100), 1, "off")
    assert moved == pytest.approx(28 * 4_884_480 / 1e9)


def test_an_evaluation_is_forward_passes() -> None:
    found = timed([point(200, 1.0), point(800, 3.7)])
    assert 0 < found.forward_s(size(800), 1) < found.update_s(size(800), 1, "off") / 2
