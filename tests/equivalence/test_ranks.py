"""Two ranks come to what one comes to, in fp32: the same rows, losses and weights to 1e-5."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.rank_cases import case_job, resumed_run, saved_on_one, whole_run
from support.ranks import RankPair, rank_pair

from trimtab.data.updates import DataPosition, updates
from trimtab.engine.distributed import ALONE, Ranks

TOLERANCE = 1e-5
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "lora": {"method": "lora"},
    "full, packed": {"method": "full", "packing": True},
    "lora, packed": {"method": "lora", "packing": True},
    "full, padded, one micro-batch a rank": {
        "method": "full",
        "padding": "longest",
        "per_device_train_batch_size": 4,
    },
    "full, recomputed": {"method": "full", "activation_checkpointing": "full"},
}


@pytest.fixture(scope="module")
def pair() -> Iterator[RankPair]:
    with rank_pair() as pair:
        yield pair


def on_ranks(ranks: int, variant: dict[str, Any]) -> dict[str, Any]:
    """The variant's settings for so many ranks, of an update of 8 rows."""
    micro = variant.get("per_device_train_batch_size", 2)
    return {**variant, "gradient_accumulation_steps": 8 // (micro * ranks)}


def assert_same_end(two: dict[str, Any], one: dict[str, Any]) -> None:
    for name, weight in one["weights"].items():
        difference = (torch.tensor(two["weights"][name]) - torch.tensor(weight)).abs().max()
        assert float(difference) <= TOLERANCE, name
    for ours, theirs in zip(two["updates"], one["updates"], strict=True):
        for exact in ("step", "epoch", "num_tokens", "num_trainable_tokens", "learning_rate"):
            assert ours[exact] == theirs[exact]
        assert ours["num_examples"] == theirs["num_examples"]
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=TOLERANCE)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], abs=TOLERANCE)
    assert two["evaluations"] == pytest.approx(one["evaluations"], abs=TOLERANCE)


@pytest.mark.parametrize("shards", [False, True], ids=["replicated", "sharded"])
@pytest.mark.parametrize("name", VARIANTS)
def test_two_ranks_equal_one(pair: RankPair, tmp_path: Path, name: str, shards: bool) -> None:
    variant = VARIANTS[name]
    one = whole_run(ALONE, str(tmp_path / "one"), **on_ranks(1, variant))
    first, second = pair.run(
        "support.rank_cases:whole_run",
        shards=shards,
        checkpoints=str(tmp_path / "two"),
        **on_ranks(2, variant),
    )
    assert_same_end(first, one)
    assert len(one["updates"]) == 7
    assert second["weights"] == first["weights"]
    losses = [[record["loss"] for record in end["updates"]] for end in (first, second)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("packing", [False, True])
def test_ranks_together_have_the_rows_of_one_in_its_order(tmp_path: Path, packing: bool) -> None:
    """The micro-batches, taken in turns from three ranks, are one rank's; the last are few."""
    changes = {"packing": packing, "per_device_train_batch_size": 1}
    streams = []
    for ranks in (ALONE, *(Ranks(rank, 3) for rank in range(3))):
        steps = 6 // ranks.num_ranks
        job = case_job(ranks, str(tmp_path), gradient_accumulation_steps=steps, **changes)
        streams.append(updates(job.train_rows, job.batching, DataPosition(0, 0)))
    for _ in range(10):
        whole, *parts = (next(stream) for stream in streams)
        taken = [
            part.micro_batches[turn].row_ids
            for turn in range(2)
            for part in parts
            if turn < len(part.micro_batches)
        ]
        assert taken == [batch.row_ids for batch in whole.micro_batches]
        assert {part.row_ids for part in parts} == {whole.row_ids}
        assert {part.num_trainable_tokens for part in parts} == {whole.num_trainable_tokens}
        assert {part.position for part in parts} == {whole.position}


@pytest.mark.parametrize("shards", [False, True], ids=["replicated", "sharded"])
def test_what_two_ranks_saved_goes_on_on_one_and_back(
    pair: RankPair, tmp_path: Path, shards: bool
) -> None:
    variant = VARIANTS["full"]
    one = whole_run(ALONE, str(tmp_path / "one"), **on_ranks(1, variant))
    places = [str(tmp_path / f"run-{name}" / "checkpoints") for name in ("of-two", "of-one")]
    ends = pair.run(
        "support.rank_cases:interrupted_run",
        shards=shards,
        checkpoints=places[0],
        after=4,
        by=1,
        **on_ranks(2, variant),
    )
    assert [(end["stopped"], end["num_updates"]) for end in ends] == [(True, 4)] * 2
    on_one = resumed_run(ALONE, places[0], step=4, **on_ranks(1, variant))
    saved_on_one(places[1], after=4, **on_ranks(1, variant))
    on_two, _ = pair.run(
        "support.rank_cases:resumed_run",
        shards=shards,
        checkpoints=places[1],
        step=4,
        **on_ranks(2, variant),
    )
    for end in (on_one, on_two):
        assert_same_end(
            end, {**one, "updates": one["updates"][4:], "evaluations": one["evaluations"][2:]}
        )


@pytest.mark.parametrize("shards", [False, True], ids=["replicated", "sharded"])
def test_two_ranks_resume_bit_for_bit(pair: RankPair, tmp_path: Path, shards: bool) -> None:
    """With dropout, whose draws differ from rank to rank."""
    variant = on_ranks(2, {"method": "lora", "lora_dropout": 0.2})
    place = str(tmp_path / "run" / "checkpoints")
    asked = {"shards": shards, **variant}
    whole, _ = pair.run(
        "support.rank_cases:whole_run", checkpoints=str(tmp_path / "whole"), **asked
    )
    pair.run("support.rank_cases:interrupted_run", checkpoints=place, after=3, by=0, **asked)
    resumed, _ = pair.run("support.rank_cases:resumed_run", checkpoints=place, step=3, **asked)
    assert resumed["weights"] == whole["weights"]


@pytest.mark.parametrize("on", [0, 1])
@pytest.mark.parametrize("what", ["memory", "nan"])
def test_what_strikes_one_rank_stops_all_before_weights_move(
    pair: RankPair, tmp_path: Path, what: str, on: int
) -> None:
    variant = on_ranks(2, VARIANTS["full"])
    place = str(tmp_path / "run" / "checkpoints")
    ends = pair.run(
        "support.rank_cases:struck_run", checkpoints=place, what=what, on=on, update=2, **variant
    )
    two_updates, _ = pair.run(
        "support.rank_cases:whole_run",
        checkpoints=str(tmp_path / "short"),
        **{**variant, "num_train_steps": 7, "lr_scheduler_type": "linear"},
    )
    fault = "update" if what == "memory" else "not finite"
    assert [end["told"]["fault"] for end in ends] == [fault, fault]
    assert [end["told"]["step"] for end in ends] == [3, 3]
    assert ends[0]["told"] == ends[1]["told"] and len(ends[0]["told"]["row_ids"]) == 6
    assert ends[0]["at_stop"] == ends[1]["at_stop"]
    if what == "memory":
        assert [end["weights"] for end in ends] == [two_updates["weights"]] * 2
