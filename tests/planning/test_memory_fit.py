from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from planning.facts import CPU, LLAMA_135M, as_facts

from trimtab.planning.memory_fit import MemoryFit, fit_memory
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.rules.memory import Checkpointing, MemoryArithmetic, memory_arithmetic

MB = 10**6
NUM_WEIGHTS = 134_515_008


def size(num_tokens: int, length: int = 64) -> MicroBatchSize:
    return MicroBatchSize(num_tokens, num_tokens // 2, num_tokens * length)


def arithmetic(method: str) -> MemoryArithmetic:
    return memory_arithmetic(
        as_facts(CPU | LLAMA_135M),
        method=method,  # type: ignore[arg-type]
        precision="fp32",
        optim="adamw",
        num_trained=NUM_WEIGHTS if method == "full" else 4_884_480,
    )


def point(
    num_tokens: int, peak: float, checkpointing: Checkpointing = "off", num_micro_batches: int = 1
) -> dict[str, Any]:
    shape = size(num_tokens)
    return {
        "activation_checkpointing": checkpointing,
        "num_rows": num_tokens // 64,
        "num_micro_batches": num_micro_batches,
        "num_tokens": shape.num_tokens,
        "num_scored": shape.num_scored,
        "sum_length_squared": shape.sum_length_squared,
        "update_s": [1.0, 1.0],
        "peak_bytes": round(peak),
    }


def fitted(
    points: Sequence[dict[str, Any]], method: str = "lora", *, loaded: int = 0, moved: int = 0
) -> MemoryFit:
    facts = as_facts(
        CPU
        | LLAMA_135M
        | {
            "trials.points": list(points),
            "trials.process_bytes": 300 * MB + moved,
            "trials.base_bytes": 300 * MB,
            "trials.loaded_bytes": loaded,
        }
    )
    found = fit_memory(facts, arithmetic(method))
    assert found is not None
    return found


def test_without_trials_there_is_no_fit() -> None:
    assert fit_memory(as_facts(CPU | LLAMA_135M), arithmetic("lora")) is None


def test_what_was_measured_is_given_back_and_what_lies_between_is_near() -> None:
    def truth(tokens: int) -> float:
        return 900 * MB + tokens * 2.2 * MB

    found = fitted([point(tokens, truth(tokens)) for tokens in (256, 1024)])
    # Beyond 1,365 scored positions logits come in several blocks, and no longer grow.
    for tokens in (256, 512, 1024, 2048):
        predicted = found.peak_bytes(size(tokens), "off", accumulates=False)
        assert predicted == pytest.approx(truth(tokens), rel=0.01)
    assert found.relative_residual < 0.01


def test_small_micro_batches_of_a_full_model_stand_on_its_gradients() -> None:
    """The peak of few tokens does not grow with them; that of many does, and from lower down."""
    gradients = 4 * (NUM_WEIGHTS - 49_152 * 576)

    def truth(tokens: int) -> float:
        return 3000 * MB + max(0.0, tokens * 1.45 * MB - gradients)

    found = fitted([point(tokens, truth(tokens)) for tokens in (64, 256, 512)], "full")
    for tokens in (64, 128, 256, 512, 2048):
        predicted = found.peak_bytes(size(tokens), "off", accumulates=False)
        assert predicted == pytest.approx(truth(tokens), rel=0.05)
    # Points on the level part alone leave the slope to arithmetic, which does not make it flat.
    level = fitted([point(tokens, truth(tokens)) for tokens in (64, 128)], "full")
    assert level.peak_bytes(size(2048), "off", accumulates=False) > 5000 * MB


def test_accumulated_gradients_stand_while_the_next_micro_batch_runs() -> None:
    late = 4 * (NUM_WEIGHTS - 49_152 * 576)
    points = [
        point(128, 3000 * MB),
        point(2048, 3000 * MB + 2048 * 1.9 * MB - late),
        point(128, 3000 * MB + 128 * 1.9 * MB, num_micro_batches=2),
    ]
    found = fitted(points, "full")
    alone = found.peak_bytes(size(2048), "off", accumulates=False)
    accumulated = found.peak_bytes(size(2048), "off", accumulates=True)
    assert accumulated - alone == pytest.approx(late, rel=0.15)


def test_the_middle_of_the_ladder_lies_between_its_ends() -> None:
    off, full = [point(1024, 3000 * MB)], [point(1024, 1400 * MB, "full")]
    found = fitted(off + full)
    assert found.peak_bytes(size(1024), 2, accumulates=False) == pytest.approx(2200 * MB, rel=0.01)
    alone = fitted(off)
    expected = 3000 * MB + (
        arithmetic("lora").peak_bytes(size(1024), 2)
        - arithmetic("lora").peak_bytes(size(1024), "off")
    )
    assert alone.peak_bytes(size(1024), 2, accumulates=False) == pytest.approx(expected, rel=0.01)


def test_no_peak_is_under_that_of_loading() -> None:
    found = fitted([point(64, 800 * MB)], loaded=1100 * MB)
    assert found.peak_bytes(size(64), "off", accumulates=False) == 1100 * MB


def test_what_the_planning_process_holds_more_is_added() -> None:
    here = fitted([point(512, 2000 * MB)], moved=200 * MB)
    assert here.peak_bytes(size(512), "off", accumulates=False) == pytest.approx(2200 * MB)


def test_a_trial_that_died_is_no_point() -> None:
    dead = point(4096, 0) | {"peak_bytes": None, "update_s": []}
    found = fitted([point(256, 1400 * MB), dead])
    assert found.peak_bytes(size(256), "off", accumulates=False) == pytest.approx(1400 * MB)
