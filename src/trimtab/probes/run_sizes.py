"""How large the run's own micro-batches are, in its seeded order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter

from trimtab.data.batches import Batching
from trimtab.data.rows import TokenRow
from trimtab.data.sizes import update_sizes
from trimtab.data.updates import num_updates_per_epoch
from trimtab.planning.fact import Fact
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.questions import RunQuestion

NUM_LARGEST = 10
MAX_EPOCHS = 2
MAX_UPDATES = 20_000
MEASURES: tuple[Callable[[MicroBatchSize], float], ...] = tuple(
    attrgetter(name) for name in ("num_tokens", "num_scored", "sum_length_squared")
)


def probe_run(
    question: RunQuestion, rows: Sequence[TokenRow], batching: Batching
) -> Iterator[Fact]:
    """Facts of `RunQuestion`; no tensor is laid out.

    Epochs differ in order alone, so of a long run two epochs, or 20,000 updates, tell the rest.
    """
    started = time.perf_counter()
    num_steps = question.settings.num_train_steps
    seen = min(num_steps, MAX_EPOCHS * num_updates_per_epoch(rows, batching), MAX_UPDATES)
    micro_batches: list[MicroBatchSize] = []
    for update in update_sizes(rows, batching, seen):
        micro_batches += update
    largest = {
        size: None
        for measure in MEASURES
        for size in sorted(micro_batches, key=measure, reverse=True)[:NUM_LARGEST]
    }
    means = [sum(map(measure, micro_batches)) / seen for measure in MEASURES]
    part = f"all {num_steps:,}" if seen == num_steps else f"the first {seen:,} of {num_steps:,}"
    method = f"counted over {part} updates, in the run's order"
    yield Fact("run.key", question.key, method=method)
    yield Fact(
        "run.micro_batches",
        [[measure(size) for measure in MEASURES] for size in largest],
        "[tokens, scored positions, tokens²]",
        method=f"{method}; the {NUM_LARGEST} largest by each of the three",
        cost_s=time.perf_counter() - started,
    )
    total = round(len(micro_batches) * num_steps / seen)
    yield Fact("run.num_micro_batches", total, "micro-batches", method=method)
    told = (
        ("num_tokens", "tokens"),
        ("num_scored", "positions"),
        ("sum_length_squared", "tokens²"),
    )
    for (name, unit), mean in zip(told, means, strict=True):
        yield Fact(f"run.{name}", mean, f"{unit} an update", method=method)
