"""Memory and seconds of real weight updates, as a measuring process takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trimtab.data.rows import MicroBatch
from trimtab.engine.memory import peak_memory_bytes
from trimtab.models.checkpointing import set_activation_checkpointing
from trimtab.probes.bench import Bench, finite_update, first_loss_scale, left_as_it_was
from trimtab.probes.resident import begin_peak

NUM_UPDATES = 2
"""The second one is the first that runs beside the optimizer's state."""


@dataclass(frozen=True, slots=True)
class Trialled:
    """Seconds of each update, and the peak over all of them."""

    update_s: tuple[float, ...]
    peak_bytes: int


def run_trial(
    bench: Bench,
    batch: MicroBatch,
    *,
    activation_checkpointing: Literal["off", "full"] | int,
    num_micro_batches: int,
) -> Trialled:
    """Updates of `num_micro_batches` times this micro-batch, at learning rate 0.

    A rate of 0 costs what any other does and leaves the weights where they are. Raises ConfigError
    where the architecture cannot recompute.
    """
    with left_as_it_was(bench):
        set_activation_checkpointing(bench.model, activation_checkpointing)
        loss_scale = first_loss_scale(bench)
        begin_peak(bench.device)
        seconds = tuple(
            finite_update(
                bench, [batch] * num_micro_batches, learning_rate=0.0, loss_scale=loss_scale
            )[1]
            for _ in range(NUM_UPDATES)
        )
        return Trialled(seconds, peak_memory_bytes(bench.device))
