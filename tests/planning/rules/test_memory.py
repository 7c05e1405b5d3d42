from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from planning.facts import CARD_80GB, CPU, LLAMA_135M, PLAIN_CPU, as_facts, planned

from trimtab.hyperparameters.config import Method, Optimizer, Precision
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.rules.memory import (
    MemoryArithmetic,
    memory_arithmetic,
    num_recomputing_layers,
)

NUM_WEIGHTS = 134_515_008
NUM_ADAPTER = 4_884_480
FEATURES = 10_176
HEAD = 49_152 * 576
LINEAR = 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)
TOKENS, SCORED = 312, 120


def memory_of(method: Method, precision: Precision) -> MemoryArithmetic:
    facts = as_facts(CPU | LLAMA_135M)
    return memory_arithmetic(
        facts, method=method, precision=precision, optim="adamw", num_trained=NUM_ADAPTER
    )


def peak(**values: Any) -> int:
    settings = {"device": PLAIN_CPU, "global_batch_size": 16, "per_device_train_batch_size": 4}
    found = planned(**(settings | values)).predictions.peak_memory_bytes
    assert found is not None
    return found


def activations(number_bytes: int) -> int:
    """31 layers' inputs and outputs, and logits once, both in the compute format."""
    return 4 * number_bytes * (31 * TOKENS * FEATURES + SCORED * 49_152)


def test_lora_in_fp32() -> None:
    fixed = 800_000_000 + 4 * NUM_WEIGHTS + NUM_ADAPTER * (4 + 4 + 8)
    assert peak() == fixed + activations(4)


def test_lora_in_bf16_keeps_frozen_weights_in_half() -> None:
    fixed = 800_000_000 + 2 * NUM_WEIGHTS + NUM_ADAPTER * (4 + 2 + 4 + 8)
    assert peak(device=CPU) == fixed + activations(2)


def test_full_keeps_fp32_masters() -> None:
    fixed = 800_000_000 + NUM_WEIGHTS * (4 + 4 + 8)
    assert peak(method="full") == fixed + activations(4)
    copies = 2 * (LINEAR + HEAD)
    assert peak(method="full", device=CPU) == fixed + copies + activations(2)


def test_a_card_has_no_interpreter_in_its_memory() -> None:
    on_card = peak(device=CARD_80GB, precision="fp32")
    assert peak(precision="fp32") - on_card == 550_000_000


def test_checkpointing_keeps_inputs_alone() -> None:
    saved = peak(activation_checkpointing="off") - peak(activation_checkpointing="full")
    assert saved == 4 * 30 * TOKENS * (4 * FEATURES - 4 * 576)
    half = peak(activation_checkpointing="off") - peak(activation_checkpointing=2)
    assert half * 2 == saved


@pytest.mark.parametrize(
    ("checkpointing", "expected"), [("off", 0), ("full", 30), (1, 30), (2, 15), (4, 8), (60, 1)]
)
def test_layers_that_recompute(checkpointing: Any, expected: int) -> None:
    assert num_recomputing_layers(30, checkpointing) == expected


def test_each_optimizer_has_its_state() -> None:
    state = {
        optim: peak(method="full", optim=optim) - peak(method="full", optim="sgd")
        for optim in get_args(Optimizer)
    }
    per_weight = {optim: size / NUM_WEIGHTS for optim, size in state.items()}
    assert per_weight == pytest.approx(
        {
            "adamw": 8,
            "adam": 8,
            "sgd": 0,
            "adafactor": 0.1,
            "muon": 4,
            "adamw_8bit": 2,
            "lion": 4,
            "adamw_schedule_free": 8,
        },
        abs=1e-6,
    )


def test_padding_costs_what_it_pads() -> None:
    longest = peak(padding="longest")
    to_length = peak(padding="max_length", max_length=1024)
    assert longest == peak()
    assert to_length - longest == 4 * 31 * (1024 - TOKENS) * 4 * FEATURES
    assert peak(padding="longest", pad_to_multiple_of=320) - longest == (
        4 * 31 * (320 - TOKENS) * 4 * FEATURES
    )


def test_packed_rows_are_full() -> None:
    packed = peak(packing=True, max_length=642)
    scored = 241  # 60 of 160 tokens are trained on, and a share of one counts whole
    extra_tokens = 31 * (642 - TOKENS) * 4 * FEATURES
    assert packed - peak() == 4 * (extra_tokens + 4 * (scored - SCORED) * 49_152)


def test_memory_grows_with_the_vocabulary() -> None:
    wide = LLAMA_135M | {"model.vocab_size": 2 * 49_152}
    assert peak(model=wide) - peak() == 4 * 4 * SCORED * 49_152


def test_logits_grow_up_to_a_block() -> None:
    bf16 = memory_of("lora", "bf16")
    assert bf16.max_scored_at_once == 2**26 // 49_152
    at_most = bf16.peak_bytes(MicroBatchSize(0, bf16.max_scored_at_once, 0), "off")
    assert bf16.peak_bytes(MicroBatchSize(0, 10**6, 0), "off") == at_most


def test_logits_that_are_capped_are_whole() -> None:
    capped = as_facts(CPU | LLAMA_135M | {"model.head_is_plain": False})
    memory = memory_arithmetic(
        capped, method="lora", precision="bf16", optim="adamw", num_trained=NUM_ADAPTER
    )
    assert memory.logits_bytes_per_position == 12 * 49_152
    assert memory.max_scored_at_once == math.inf


def test_fp16_takes_whole_logits_three_times_in_fp32() -> None:
    fp16, bf16 = memory_of("full", "fp16"), memory_of("full", "bf16")
    assert fp16.logits_bytes_per_position == 12 * 49_152
    assert fp16.max_scored_at_once == math.inf
    assert fp16.layer_bytes_per_token - bf16.layer_bytes_per_token == 28 * 576
    assert memory_of("lora", "fp16").layer_bytes_per_token == bf16.layer_bytes_per_token


def test_peak_grows_by_tokens() -> None:
    memory = MemoryArithmetic(1000, 300, 100, 40, 8, 4, 10, 1, 5, math.inf)
    size = MicroBatchSize(2, 3, 4)
    assert memory.peak_bytes(size, "off") == 1000 + 2 * 5 * 10 + 3 * 5
    assert memory.peak_bytes(size, "full") == 1000 + 2 * (1 * 10 + 4 * 1) + 3 * 5
    assert memory.peak_bytes(size, 2) == 1000 + 2 * (3 * 10 + 2 * 1) + 3 * 5
    assert [memory.copy_bytes(each) for each in ("off", 2, "full")] == [48, 28, 8]
