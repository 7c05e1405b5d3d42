from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from support.batches import ragged_rows, size_of
from support.settings import tiny_settings

from trimtab.data.updates import DataPosition, updates
from trimtab.engine.building import batching
from trimtab.planning.questions import RunQuestion
from trimtab.probes.run_sizes import MAX_EPOCHS, NUM_LARGEST, probe_run


def facts_of(num_train_steps: int, **changes: Any) -> tuple[dict[str, Any], list[list[Any]]]:
    """The facts, and the sizes of the run's micro-batches by update as training lays them out."""
    rows = ragged_rows(range(3, 27))
    settings = tiny_settings(
        num_train_steps=num_train_steps,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        **changes,
    )
    layout = batching(settings)
    run = islice(updates(rows, layout, DataPosition(0, 0)), num_train_steps)
    sizes = [[size_of(batch) for batch in update.micro_batches] for update in run]
    facts = {fact.id: fact.value for fact in probe_run(RunQuestion(settings), rows, layout)}
    return facts, sizes


@pytest.mark.parametrize("changes", [{}, {"padding": "longest"}, {"packing": True}], ids=str)
def test_facts_are_those_of_the_runs_own_micro_batches(changes: dict[str, Any]) -> None:
    facts, sizes = facts_of(2, **changes)
    flat = [size for update in sizes for size in update]
    assert facts["run.num_micro_batches"] == len(flat)
    for name in ("num_tokens", "num_scored", "sum_length_squared"):
        mean = sum(getattr(size, name) for size in flat) / len(sizes)
        assert facts[f"run.{name}"] == pytest.approx(mean)
    largest = facts["run.micro_batches"]
    for index, name in enumerate(("num_tokens", "num_scored", "sum_length_squared")):
        expected = sorted((getattr(size, name) for size in flat), reverse=True)[:NUM_LARGEST]
        assert set(expected) <= {size[index] for size in largest}
    assert len({tuple(size) for size in largest}) == len(largest)


def test_a_long_run_is_told_from_its_first_epochs() -> None:
    facts, sizes = facts_of(1000)
    epochs = 4 * MAX_EPOCHS
    flat = [size for update in sizes[:epochs] for size in update]
    assert facts["run.num_tokens"] == sum(size.num_tokens for size in flat) / epochs
    assert facts["run.num_micro_batches"] == 2000
