from __future__ import annotations

import re

import pytest
from planning.facts import (
    CARD_8GB,
    CARD_24GB,
    CARD_80GB,
    CPU,
    GB,
    LLAMA_8B,
    PLAIN_CPU,
    data,
    planned,
    quantiles,
)

from trimtab.errors import ConfigError, DoesNotFit
from trimtab.planning.plan import Plan
from trimtab.planning.rules.batch import is_friendly, micro_batch_candidates, nearest_friendly
from trimtab.planning.rules.global_batch import GivenSizes

SIZES = ("per_device_train_batch_size", "gradient_accumulation_steps", "global_batch_size")


def sizes(plan: Plan) -> tuple[int, int, int]:
    micro, accumulation, total = (plan.decision(name).value for name in SIZES)
    assert {type(size) for size in (micro, accumulation, total)} == {int}
    return micro, accumulation, total


def test_friendly_sizes() -> None:
    assert [size for size in range(1, 33) if is_friendly(size)] == [1, 2, 4, 8, 16, 24, 32]
    assert [nearest_friendly(size) for size in (3, 5, 7, 9, 13, 31)] == [
        (2, 4),
        (4, 8),
        (4, 8),
        (8, 16),
        (8, 16),
        (24, 32),
    ]


# Guide row 1: the batch.


@pytest.mark.parametrize(
    ("num_rows", "epochs", "expected"),
    [
        (16 * 50, 3.0, 16),  # 150 updates, just enough
        (16 * 49, 3.0, 8),  # 147
        (8 * 50, 3.0, 8),
        (8 * 49, 3.0, 4),
        (40, 3.0, 4),  # 30 updates, yet 4 is the least
        (16 * 49, 4.0, 16),
    ],
)
def test_auto_global_batch_keeps_150_updates(num_rows: int, epochs: float, expected: int) -> None:
    plan = planned(
        rows=data(num_rows=num_rows), eval_dataset="none", num_train_epochs=epochs, device=CARD_80GB
    )
    decision = plan.decision("global_batch_size")
    assert decision.value == expected
    assert decision.origin == "rule"
    assert f"{plan.predictions.num_steps}" in decision.because
    assert ("under 150" in decision.because) is (plan.predictions.num_steps < 150)


def test_sizes_turned_down_are_of_the_aimed_batch_alone() -> None:
    aimed = planned(device=CARD_80GB).decision("global_batch_size")
    assert [one.value for one in aimed.alternatives] == [8]
    assert aimed.because == "3 epochs of 973 rows give 183 updates, at least 150"
    for values in ({"global_batch_size": 16}, {"per_device_train_batch_size": 6}):
        asked = planned(device=CARD_80GB, **values).decision("global_batch_size")
        assert asked.alternatives == ()


def test_max_steps_leaves_the_global_batch_alone() -> None:
    plan = planned(rows=data(num_rows=100), eval_dataset="none", max_steps=20)
    assert plan.decision("global_batch_size").value == 16


@pytest.mark.parametrize(
    ("num_rows", "values", "expected"),
    [
        (10, {"max_steps": 20}, 10),
        (16, {"max_steps": 20}, 16),
        (3, {}, 3),
        (1, {}, 1),
        (4, {}, 4),
    ],
)
def test_an_auto_update_has_no_more_rows_than_there_are(
    num_rows: int, values: dict[str, int], expected: int
) -> None:
    plan = planned(rows=data(num_rows=num_rows), eval_dataset="none", **values)
    decision = plan.decision("global_batch_size")
    assert decision.value == expected
    assert ("fewer than" in decision.because) is (num_rows in {1, 3, 10})
    assert plan.decision("per_device_train_batch_size").value <= expected


def test_a_global_batch_over_the_rows_is_told_and_scales_the_rate_by_what_there_is() -> None:
    rows = {"rows": data(num_rows=32), "eval_dataset": "none"}
    over, whole = planned(global_batch_size=1024, **rows), planned(global_batch_size=32, **rows)
    assert over.settings().learning_rate == whole.settings().learning_rate
    assert "A global batch of 1,024 is more than the 32 rows" in over.warnings[0]
    assert whole.warnings == ()


def test_auto_micro_batch_is_the_largest_that_fits() -> None:
    plan = planned(device=CPU, global_batch_size=64, memory_limit="8GB")
    micro, accumulation, total = sizes(plan)
    assert (micro, accumulation, total) == (32, 2, 64)
    assert plan.predictions.peak_memory_bytes is not None
    assert plan.predictions.peak_memory_bytes <= 8 * GB
    alternatives = {one.value: one.because for one in plan.decision(SIZES[0]).alternatives}
    assert list(alternatives) == [1, 2, 4, 8, 16, 64]
    assert "over the limit" in alternatives[64]
    assert "over the limit" not in alternatives[8]
    larger = planned(device=CPU, global_batch_size=64, per_device_train_batch_size=64)
    assert larger.predictions.peak_memory_bytes is not None
    assert larger.predictions.peak_memory_bytes > 8 * GB


def test_less_memory_gives_smaller_micro_batches_and_the_same_global_batch() -> None:
    found = [
        sizes(planned(device=PLAIN_CPU, memory_limit=f"{limit}GB")) for limit in (16, 8, 5, 3, 2)
    ]
    assert {total for _, _, total in found} == {16}
    assert all(micro * accumulation == 16 for micro, accumulation, _ in found)
    micros = [micro for micro, _, _ in found]
    assert micros == sorted(micros, reverse=True)
    assert micros[0] == 16
    assert micros[-1] < 4


# Guide row 2: friendly sizes.


def test_auto_never_picks_an_odd_size() -> None:
    for total in range(1, 41):
        micro, accumulation, _ = sizes(planned(device=CARD_80GB, global_batch_size=total))
        assert is_friendly(micro)
        assert micro * accumulation == total


@pytest.mark.parametrize(("size", "below", "above"), [(9, 8, 16), (13, 8, 16), (3, 2, 4)])
def test_an_odd_size_is_kept_with_a_warning(size: int, below: int, above: int) -> None:
    plan = planned(device=CARD_80GB, per_device_train_batch_size=size)
    assert sizes(plan)[0] == size
    (warning,) = (one for one in plan.warnings if "micro-batch" in one)
    assert f"The nearest are {below} (predicted peak " in warning
    assert f"and {above} (predicted peak " in warning


@pytest.mark.parametrize("size", [1, 2, 4, 8, 24])
def test_friendly_sizes_are_not_warned_of(size: int) -> None:
    plan = planned(device=CARD_80GB, per_device_train_batch_size=size)
    assert plan.warnings == ()


# Guide row 4: accumulation.


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((4, 3, None), (4, 3, 12)),
        ((4, None, 12), (4, 3, 12)),
        ((None, 3, 12), (4, 3, 12)),
        ((4, 3, 12), (4, 3, 12)),
        ((4, None, None), (4, 4, 16)),
        ((6, None, None), (6, 3, 18)),
        ((64, None, None), (64, 1, 64)),
        ((None, 4, None), (4, 4, 16)),
        ((None, 3, None), (4, 3, 12)),
        ((None, 32, None), (1, 32, 32)),
        ((None, None, 12), (4, 3, 12)),
        ((None, None, 24), (24, 1, 24)),
        ((None, None, 7), (1, 7, 7)),
    ],
)
def test_two_given_decide_the_third(
    given: tuple[int | None, ...], expected: tuple[int, int, int]
) -> None:
    values = {name: size for name, size in zip(SIZES, given, strict=True) if size is not None}
    plan = planned(device=CARD_80GB, **values)
    assert sizes(plan) == expected
    origins = {name: plan.decision(name).origin for name in SIZES}
    assert origins == {name: "user" if name in values else "rule" for name in SIZES}


@pytest.mark.parametrize(
    ("given", "micro_told", "total_told"),
    [
        ((None, None, 12), "the largest friendly size", "12 rows an update = 4 × 3"),
        ((None, 3, 12), "12 rows an update = 4 × 3", "12 rows an update = 4 × 3"),
        ((6, None, None), "predicted peak", "near 16 ("),
        ((4, 3, None), "predicted peak", "both factors are set: 12 rows"),
        ((None, 3, None), "the largest friendly size", "near 16 ("),
    ],
)
def test_reasons_say_what_decided(
    given: tuple[int | None, ...], micro_told: str, total_told: str
) -> None:
    values = {name: size for name, size in zip(SIZES, given, strict=True) if size is not None}
    plan = planned(device=CARD_80GB, **values)
    because = {name: plan.decision(name).because for name in SIZES}
    assert because[SIZES[0]].removeprefix("set in Python; ").startswith(micro_told)
    assert because[SIZES[2]].removeprefix("set in Python; ").startswith(total_told)


def test_ranks_count_in_the_product() -> None:
    assert sizes(planned(device=CARD_80GB, num_ranks=2)) == (8, 1, 16)
    assert sizes(planned(device=CARD_80GB, num_ranks=3)) == (1, 5, 15)
    plan = planned(
        device=CARD_80GB,
        num_ranks=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=3,
        global_batch_size=24,
    )
    assert sizes(plan) == (4, 3, 24)
    with pytest.raises(ConfigError, match=r"15 is not divisible by 2 devices"):
        planned(device=CARD_80GB, num_ranks=2, global_batch_size=15)


def test_three_that_disagree_are_named_with_the_product() -> None:
    with pytest.raises(ConfigError) as caught:
        planned(per_device_train_batch_size=4, gradient_accumulation_steps=3, global_batch_size=16)
    assert caught.value.what == (
        "global_batch_size 16 is not per_device_train_batch_size 4 × "
        "gradient_accumulation_steps 3 = 12."
    )


@pytest.mark.parametrize(
    ("values", "nearest"),
    [
        ({"per_device_train_batch_size": 6, "global_batch_size": 16}, "12 or 18"),
        ({"gradient_accumulation_steps": 5, "global_batch_size": 16}, "15 or 20"),
        ({"per_device_train_batch_size": 32, "global_batch_size": 16}, "32"),
    ],
)
def test_a_global_batch_that_does_not_divide(values: dict[str, int], nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(**values)
    assert "not divisible" in caught.value.what
    assert caught.value.hint == f"The nearest global batch that is: {nearest}."


def test_candidates_divide_what_a_rank_gets() -> None:
    assert micro_batch_candidates(GivenSizes(None, None, 48, 2), 16) == (24, 8, 4, 2, 1)
    assert micro_batch_candidates(GivenSizes(None, 3, None, 1), 16) == (4, 2, 1)


# Guide row 5: checkpointing, and memory that is not there.


def test_checkpointing_stays_off_where_it_fits() -> None:
    decision = planned().decision("activation_checkpointing")
    assert (decision.value, decision.origin) == ("off", "rule")
    (alternative,) = decision.alternatives
    assert alternative.value == "full"
    assert "GiB" in alternative.because
    assert "%" in alternative.because


def long_rows(longest: int) -> dict[str, object]:
    return data(length_max=longest, length_quantiles=quantiles(1024, longest, longest))


def test_the_least_checkpointing_that_fits() -> None:
    rows = long_rows(4096)
    found = [
        planned(rows=rows, device=PLAIN_CPU, memory_limit=limit).decision(
            "activation_checkpointing"
        )
        for limit in ("9GB", "5GB", "3GB")
    ]
    assert [decision.value for decision in found] == ["off", 2, "full"]
    (off, full) = found[1].alternatives
    assert (off.value, full.value) == ("off", "full")
    assert "more memory" in off.because
    assert "less memory" in full.because
    assert "more time, by arithmetic" in full.because


def test_asked_checkpointing_makes_room_for_larger_micro_batches() -> None:
    limits = {"device": PLAIN_CPU, "memory_limit": "3GB"}
    off = sizes(planned(activation_checkpointing="off", **limits))
    full = sizes(planned(activation_checkpointing="full", **limits))
    assert full[0] > off[0]
    assert full[2] == off[2]


def test_a_card_recomputes_before_it_runs_nearly_empty_micro_batches() -> None:
    # Rows of 160 tokens: 4 of them are the first friendly size of at least 512.
    plan = planned(device=CARD_24GB, model=LLAMA_8B, memory_limit="19GB")
    assert plan.decision("activation_checkpointing").value == "full"
    assert sizes(plan) == (4, 4, 16)
    off = planned(
        device=CARD_24GB, model=LLAMA_8B, activation_checkpointing="off", memory_limit="20GB"
    )
    assert sizes(off) == (1, 16, 16)
    # Where recomputing everything does not make room for that, the largest size that fits.
    limit = {"device": CARD_24GB, "memory_limit": "18.2GB"}
    tight = planned(model=LLAMA_8B, **limit)
    assert tight.decision("activation_checkpointing").value == "full"
    assert sizes(tight)[0] == 1


def test_nothing_fits() -> None:
    with pytest.raises(DoesNotFit) as caught:
        planned(device=CARD_8GB, model=LLAMA_8B, method="full")
    assert caught.value.exit_code == 5
    assert "micro-batch of 1 with activation_checkpointing full" in caught.value.what
    assert "GiB" in caught.value.what
    assert caught.value.hint is not None
    assert "method lora" in caught.value.hint


def test_nothing_fits_for_the_rows_length() -> None:
    with pytest.raises(DoesNotFit) as caught:
        planned(device=PLAIN_CPU, memory_limit="1.7GB", rows=long_rows(8192))
    assert caught.value.hint is not None
    assert "max_length 1,024 (1.4 GiB, cuts 88% of the rows)" in caught.value.hint
    assert "memory_limit 2.3 GiB" in caught.value.hint


def test_a_given_micro_batch_over_a_set_limit_is_refused_with_one_that_fits() -> None:
    with pytest.raises(DoesNotFit) as caught:
        planned(
            device=PLAIN_CPU,
            per_device_train_batch_size=64,
            activation_checkpointing="off",
            memory_limit="5GB",
        )
    assert caught.value.hint is not None
    assert "per_device_train_batch_size 8 with activation_checkpointing off (" in caught.value.hint
    assert "with activation_checkpointing 2 (" in caught.value.hint
    assert "× the time" in caught.value.hint


def test_a_given_micro_batch_over_what_is_free_is_kept_with_a_warning() -> None:
    tight = PLAIN_CPU | {"device.memory_available_bytes": 4 * GB}
    values = {"per_device_train_batch_size": 16, "activation_checkpointing": "off"}
    plan = planned(device=tight, **values)
    assert sizes(plan)[0] == 16
    assert any("may not fit" in warning for warning in plan.warnings)
    with pytest.raises(DoesNotFit):
        planned(device=tight | {"device.memory_bytes": 5 * GB}, **values)


def test_memory_limit() -> None:
    found = planned(device=CPU).decision("memory_limit")
    assert (found.value, found.origin) == (10_800_000_000, "measured")
    asked = planned(memory_limit="6GiB").decision("memory_limit")
    assert (asked.value, asked.origin) == (6 * 2**30, "user")
    assert planned(memory_limit=7 * GB).decision("memory_limit").value == 7 * GB


def test_a_set_limit_is_never_over_what_the_device_has() -> None:
    values = {"device": PLAIN_CPU, "model": LLAMA_8B, "global_batch_size": 128}
    small = PLAIN_CPU | {"device.memory_bytes": 64 * GB, "device.memory_available_bytes": 60 * GB}
    plan = planned(**values | {"device": small, "memory_limit": "200GB"})
    assert plan.settings().memory_limit == 64 * GB
    assert plan.predictions.worst_case_memory_bytes is not None
    assert plan.predictions.worst_case_memory_bytes <= 64 * GB
    told = "memory_limit 186.3 GiB is over the 59.6 GiB that the device has"
    assert any(told in warning for warning in plan.warnings)
    with pytest.raises(DoesNotFit):
        planned(**values, memory_limit="200GB")


def test_a_set_limit_over_what_is_free_is_kept_and_told_where_it_is_used() -> None:
    tight = PLAIN_CPU | {"device.memory_available_bytes": 2 * GB}
    plan = planned(device=tight, memory_limit="15GB")
    assert plan.settings().memory_limit == 15 * GB
    assert any("over what is free now" in warning for warning in plan.warnings)
    assert planned(device=tight, memory_limit="15GB", global_batch_size=1).warnings == ()


def test_ranks_on_one_memory_share_a_set_limit() -> None:
    alone = planned(memory_limit="8GB", global_batch_size=64)
    shared = planned(memory_limit="16GB", global_batch_size=128, num_ranks=2)
    assert shared.settings().memory_limit == alone.settings().memory_limit == 8 * GB
    assert sizes(shared)[0] == sizes(alone)[0]
    assert shared.decision("memory_limit").because.endswith("; 14.9 GiB, shared by 2 ranks")
    cards = planned(device=CARD_24GB, memory_limit="16GB", num_ranks=2)
    assert cards.settings().memory_limit == 16 * GB


@pytest.mark.parametrize("size", [5, 7])
def test_sizes_that_are_offered_divide_a_set_global_batch(size: int) -> None:
    values = {
        "device": PLAIN_CPU,
        "global_batch_size": 3 * size,
        "activation_checkpointing": "off",
        "memory_limit": "2300MB",
    }
    with pytest.raises(DoesNotFit) as caught:
        planned(per_device_train_batch_size=3 * size, **values)
    assert caught.value.hint is not None
    offered = re.findall(
        r"per_device_train_batch_size (\d+) with activation_checkpointing (\w+)", caught.value.hint
    )
    assert offered
    for micro, checkpointing in offered:
        way = {"activation_checkpointing": checkpointing if checkpointing != "2" else 2}
        planned(per_device_train_batch_size=int(micro), **values | way)


def test_a_memory_limit_that_is_offered_is_enough_and_is_there() -> None:
    values = {"device": PLAIN_CPU, "rows": long_rows(8192), "num_ranks": 2}
    for limit in ("2GB", "3GB", "3300MB"):
        with pytest.raises(DoesNotFit) as caught:
            planned(memory_limit=limit, **values)
        assert caught.value.hint is not None
        offered = caught.value.hint.rpartition("memory_limit ")[2].removesuffix(".")
        planned(memory_limit=offered, **values)
    with pytest.raises(DoesNotFit) as caught:
        planned(device=CARD_8GB, model=LLAMA_8B, method="full")
    assert caught.value.hint is not None
    assert "memory_limit" not in caught.value.hint
    assert caught.value.hint.endswith("or a device with more memory.")


def test_what_is_offered_for_padded_rows_counts_from_their_padded_length() -> None:
    values = {"device": PLAIN_CPU, "padding": "max_length", "memory_limit": "1700MB"}
    with pytest.raises(DoesNotFit) as caught:
        planned(max_length=8192, **values)
    hint = caught.value.hint
    assert hint is not None
    assert "max_length 1,024 (" in hint and "cuts 0% of the rows" in hint
    assert "padding none (" in hint
    assert planned(max_length=1024, **values).settings().max_length == 1024
    assert planned(max_length=8192, **values | {"padding": "none"})


def test_packed_rows_are_what_batches_count() -> None:
    plan = planned(packing=True, device=CARD_80GB)
    micro, accumulation, total = sizes(plan)
    # 487 packed rows: 61 updates of 8 an epoch, 183 in all; 16 would leave 93.
    assert (micro * accumulation, total) == (8, 8)
    assert plan.predictions.num_steps == 183


def test_eval_batch_is_the_micro_batch() -> None:
    plan = planned(device=CARD_80GB, per_device_train_batch_size=4)
    assert plan.decision("per_device_eval_batch_size").value == 4
    assert planned(per_device_eval_batch_size=2).decision("per_device_eval_batch_size").value == 2
