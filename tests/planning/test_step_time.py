from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from planning.facts import LLAMA_8B, as_facts

from trimtab.hyperparameters.config import Method
from trimtab.planning.communication import SUMMED_AT_ONCE_BYTES, Fabric
from trimtab.planning.device_sheets import DEVICE_SHEETS, datasheet_facts
from trimtab.planning.fact import Facts
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.rules.memory import memory_arithmetic
from trimtab.planning.step_time import (
    ATTENTION_SHARE,
    MATMUL_SHARE,
    PredictedTime,
    Rates,
    Split,
    datasheet_rates,
)
from trimtab.planning.timing import Work

NUM_WEIGHTS = 8_030_261_248
SIZE = MicroBatchSize(8192, 8192, 8192 * 4096)
FAST_LINKS = Fabric(8, 1e18, 1e17, share=1.0)


def facts() -> Facts:
    return as_facts(LLAMA_8B).adding(datasheet_facts(DEVICE_SHEETS["h100"]))


def time(
    split: Split, *, rates: Rates | None = None, method: Method = "full", trained: int = NUM_WEIGHTS
) -> PredictedTime:
    known = facts()
    memory = memory_arithmetic(
        known,
        method=method,
        precision="bf16",
        optim="adamw",
        num_trained=trained,
        num_shards=split.num_shards,
    )
    work = Work(known, method, "bf16", trained)
    return PredictedTime(work, memory, rates or datasheet_rates(known, work), split)


def test_arithmetic_is_operations_over_the_rate() -> None:
    one = time(Split(1))
    terms = one.terms(SIZE, 1, "off")
    flops = one.work.training_flops(SIZE, "off")
    slow = 3 * one.work.attention_flops(SIZE) * (1 / ATTENTION_SHARE - 1)
    rate = DEVICE_SHEETS["h100"].matmul_flops_per_s
    assert rate is not None
    assert terms.arithmetic_s == pytest.approx((flops + slow) / (MATMUL_SHARE * rate))
    assert terms.communication_s == terms.waiting_s == 0


def test_the_terms_make_the_update() -> None:
    sharded = time(Split(64, 64))
    terms = sharded.terms(SIZE, 2, 2)
    parts = terms.arithmetic_s + terms.memory_s + terms.waiting_s + terms.optimizer_s
    assert sharded.update_s(SIZE, 2, 2) == pytest.approx(parts)
    assert 0 < terms.waiting_s < terms.communication_s


def test_micro_batches_add_up_and_the_optimizer_does_not() -> None:
    once, thrice = (time(Split(8, 8)).terms(SIZE, k, "off") for k in (1, 3))
    assert thrice.arithmetic_s == pytest.approx(3 * once.arithmetic_s)
    assert thrice.communication_s == pytest.approx(3 * once.communication_s)
    assert thrice.optimizer_s == once.optimizer_s


def test_copies_reduce_once_an_update() -> None:
    """A sharded model communicates for every micro-batch, copies for every update."""
    copies = [time(Split(8, 1)).terms(SIZE, k, "off").communication_s for k in (1, 4)]
    assert copies[0] == copies[1]
    fabric = datasheet_rates(facts(), time(Split(8)).work).fabric
    moved_s = 2 * 7 / 8 * 4 * NUM_WEIGHTS / (fabric.share * fabric.intra_node_bytes_per_s)
    num_exchanges = ceil(4 * NUM_WEIGHTS / SUMMED_AT_ONCE_BYTES)
    assert copies[0] == pytest.approx(moved_s + 2 * num_exchanges * 7 * fabric.intra_hop_s)


def test_copies_wait_for_their_sum_and_copies_of_shards_hide_it() -> None:
    """`train` sums the gradients of copies once the last backward pass is done."""
    copies = time(Split(8, 1)).terms(SIZE, 4, "off")
    assert copies.waiting_s == copies.communication_s > 0
    rates = replace(time(Split(1)).rates, fabric=Fabric(8, 1e11, 1e11))
    hidden = time(Split(64, 8), rates=rates).terms(SIZE, 4, "off")
    alone = time(Split(8, 8), rates=rates).terms(SIZE, 4, "off")
    summed_s = hidden.communication_s - alone.communication_s
    assert 0 < hidden.waiting_s - alone.waiting_s < summed_s / 2


def test_a_step_of_a_cpu_takes_as_long_as_a_cpu_takes_to_start_it() -> None:
    known = facts().adding(as_facts({"device.kind": "cpu"}))
    one = time(Split(1))
    on_cpu = replace(one, work=replace(one.work, facts=known))
    tiny = MicroBatchSize(1, 1, 1)
    assert on_cpu.terms(tiny, 1, "off").arithmetic_s == pytest.approx(32 * 1e-3)


def test_recomputation_costs_a_forward_pass_of_the_layers() -> None:
    off, half, full = (
        time(Split(1)).terms(SIZE, 1, each).arithmetic_s for each in ("off", 2, "full")
    )
    assert off < half < full < off * 4 / 3
    assert half - off == pytest.approx(full - half)


def test_slow_links_are_waited_for_and_fast_ones_are_not() -> None:
    rates = time(Split(1)).rates
    slow = replace(rates, fabric=Fabric(8, 1e9, 1e9))
    fast = replace(rates, fabric=FAST_LINKS)
    waited = time(Split(8, 8), rates=slow).terms(SIZE, 1, "off")
    assert waited.waiting_s > waited.arithmetic_s
    assert time(Split(8, 8), rates=fast).terms(SIZE, 1, "off").waiting_s < 1e-3


def test_lora_scatters_its_adapters_alone() -> None:
    adapters = 41_943_040
    lora = time(Split(8, 8), method="lora", trained=adapters).terms(SIZE, 1, "off")
    full = time(Split(8, 8)).terms(SIZE, 1, "off")
    assert lora.communication_s < full.communication_s * 0.6
    assert lora.arithmetic_s < full.arithmetic_s


def test_a_tiny_micro_batch_takes_as_long_as_its_kernels_take_to_start() -> None:
    tiny = MicroBatchSize(1, 1, 1)
    terms = time(Split(1)).terms(tiny, 1, "off")
    assert terms.arithmetic_s == pytest.approx(32 * 5e-4)


def test_a_format_that_the_device_does_not_have_runs_at_the_rate_of_fp32() -> None:
    known = as_facts(LLAMA_8B).adding(datasheet_facts(DEVICE_SHEETS["t4"]))
    sheet = DEVICE_SHEETS["t4"]
    work = Work(known, "lora", "bf16", 1)
    assert datasheet_rates(known, work).flops_per_s == sheet.flops_per_s["fp32"] * 0.8


@pytest.mark.parametrize("num_shards", [2, 8, 64])
def test_shards_divide_what_is_kept(num_shards: int) -> None:
    """16 bytes a trained weight are divided; what is gathered at a time is not."""
    alone, sharded, more = (
        time(Split(count, count)).memory.fixed_bytes for count in (1, num_shards, 2 * num_shards)
    )
    assert sharded - more == pytest.approx(16 * NUM_WEIGHTS / (2 * num_shards), rel=1e-6)
    assert more < sharded < alone
