"""Replicas or shards: by the least that a rank needs, and by what the optimizer can work on."""

from __future__ import annotations

from typing import Any

import pytest
from planning.facts import CARD_24GB, CARD_80GB, LLAMA_8B, config, planned

from trimtab.errors import ConfigError
from trimtab.hyperparameters.config import Optimizer
from trimtab.planning.rules.choice import MemoryRoom
from trimtab.planning.rules.parallelism import (
    OPTIMIZERS_OF_SHARDS,
    Division,
    choose_parallelism,
    decide_parallelism,
)
from trimtab.planning.rules.ruling import Ruling

GIB = 2**30
ROOM = MemoryRoom(
    limit_bytes=10 * GIB, ceiling_bytes=12 * GIB, free_bytes=11 * GIB, device_bytes=12 * GIB
)


def ruling(
    value: Division, *, optim: Optimizer = "adamw", num_ranks: int = 4, **values: Any
) -> Ruling:
    return decide_parallelism(
        config(**values),
        value,
        num_ranks=num_ranks,
        optim=optim,
        replica_bytes=20 * GIB,
        shard_bytes=6 * GIB,
        room=ROOM,
    )


@pytest.mark.parametrize(
    ("replica_gib", "num_ranks", "expected"),
    [(9, 4, "replicate"), (9.8, 4, "shard"), (20, 4, "shard"), (20, 1, "replicate")],
)
def test_shards_come_only_where_a_replica_has_no_room(
    replica_gib: float, num_ranks: int, expected: str
) -> None:
    """9.8 of 10 GiB is within the margin that predictions keep free."""
    found = choose_parallelism(config(), num_ranks, int(replica_gib * GIB), ROOM)
    assert found == expected


@pytest.mark.parametrize("asked", ["replicate", "shard"])
@pytest.mark.parametrize("replica_gib", [1, 20])
def test_what_is_asked_for_is_taken(asked: str, replica_gib: int) -> None:
    found = choose_parallelism(config(parallelism=asked), 4, replica_gib * GIB, ROOM)
    assert found == asked


def test_the_reason_has_both_figures_and_the_limit() -> None:
    (made,) = ruling("shard").decisions
    assert (made.name, made.value, made.origin) == ("parallelism", "shard", "rule")
    assert made.because == (
        "a replica needs 20.0 GiB at the least and a shard needs 6.0 GiB at the least; "
        "the limit of each rank is 10.0 GiB"
    )
    assert [each.value for each in made.alternatives] == ["replicate"]
    assert made.facts == ("model.num_parameters", "device.memory_available_bytes")


def test_what_exchanges_take_is_said_not_to_be_measured() -> None:
    for value in ("replicate", "shard"):
        assert "exchange" in ruling(value).not_measured[0]
    assert ruling("replicate", num_ranks=1).not_measured == ()


def test_a_setting_of_the_users_is_told_as_theirs() -> None:
    (made,) = ruling("replicate", parallelism="replicate").decisions
    assert made.origin == "user"
    assert made.because.startswith("set in Python; a replica needs")


def test_one_rank_has_the_whole_model() -> None:
    (made,) = ruling("replicate", num_ranks=1).decisions
    assert made.because == "one rank has the whole model"


@pytest.mark.parametrize(
    "optim", ["adafactor", "muon", "adamw_8bit", "lion", "adamw_schedule_free"]
)
def test_optimizers_that_cannot_work_on_shards_are_refused(optim: Optimizer) -> None:
    assert optim not in OPTIMIZERS_OF_SHARDS
    with pytest.raises(ConfigError, match=f"optim: {optim} cannot work on shards") as refused:
        ruling("shard", optim=optim)
    assert "adamw, adam, sgd" in str(refused.value)
    assert ruling("replicate", optim=optim).decisions[0].value == "replicate"


@pytest.mark.parametrize("optim", OPTIMIZERS_OF_SHARDS)
def test_optimizers_that_look_at_single_numbers_are_not(optim: Optimizer) -> None:
    assert ruling("shard", optim=optim).decisions[0].value == "shard"


def test_a_plan_shards_what_does_not_fit_and_replicates_what_does() -> None:
    asked = {"method": "full", "precision": "bf16", "global_batch_size": 64}
    whole = planned(device=CARD_80GB, num_ranks=8, **asked)
    parts = planned(device=CARD_80GB, model=LLAMA_8B, num_ranks=8, **asked)
    assert whole.settings().parallelism == "replicate"
    assert parts.settings().parallelism == "shard"


def test_a_plan_of_shards_needs_less_of_each_of_more_ranks() -> None:
    few, many = (
        planned(
            device=CARD_24GB,
            method="full",
            parallelism="shard",
            num_ranks=num_ranks,
            global_batch_size=64,
            per_device_train_batch_size=1,
            activation_checkpointing="full",
        ).predictions.worst_case_memory_bytes
        for num_ranks in (2, 8)
    )
    assert few is not None and many is not None
    assert many < few
