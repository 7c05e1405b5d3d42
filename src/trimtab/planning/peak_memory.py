"""Which peak a micro-batch of so many rows comes to: measured where trials were made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from trimtab.planning.fact import Facts
from trimtab.planning.memory_fit import MemoryFit
from trimtab.planning.micro_batches import MicroBatchSize, largest_micro_batch
from trimtab.planning.positions import Layout
from trimtab.planning.rules.memory import Checkpointing, MemoryArithmetic


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Predictions for one model, method, precision and layout of rows.

    rows_per_update: of one device; a micro-batch of fewer is accumulated. accumulation: the
    micro-batches of an update where they are given and its rows are not, else None. `measured` is
    None where no trial was made.
    """

    facts: Facts
    layout: Layout
    packing: bool
    rows_per_update: int
    accumulation: int | None
    arithmetic: MemoryArithmetic
    measured: MemoryFit | None

    def rows_in_update(self, num_rows: int) -> int:
        """Rows of one device in an update whose micro-batches have `num_rows`."""
        if self.accumulation is not None:
            return num_rows * self.accumulation
        return self.rows_per_update

    @property
    def fixed_bytes(self) -> int:
        """What is needed before the first row: weights, gradients, optimizer state, libraries."""
        return self.arithmetic.fixed_bytes

    def worst_case_bytes(self, num_rows: int, checkpointing: Checkpointing) -> int:
        """The peak of a micro-batch of the `num_rows` largest rows."""
        return self._peak_bytes(self.largest(num_rows), num_rows, checkpointing)

    def largest(self, num_rows: int) -> MicroBatchSize:
        """The micro-batch of the `num_rows` largest rows."""
        return largest_micro_batch(self.facts, self.layout, num_rows, packing=self.packing)

    def run_bytes(self, num_rows: int, checkpointing: Checkpointing) -> int:
        """The peak of the run's own order, which is at most the worst case."""
        worst = self.worst_case_bytes(num_rows, checkpointing)
        if "run.micro_batches" not in self.facts:
            return worst
        sizes = cast(list[list[float]], self.facts.value("run.micro_batches"))
        peaks = [self._peak_bytes(MicroBatchSize(*size), num_rows, checkpointing) for size in sizes]
        return min(worst, max(peaks))

    def _peak_bytes(self, size: MicroBatchSize, num_rows: int, checkpointing: Checkpointing) -> int:
        if self.measured is None:
            return self.arithmetic.peak_bytes(size, checkpointing)
        accumulates = num_rows < self.rows_in_update(num_rows)
        return self.measured.peak_bytes(size, checkpointing, accumulates=accumulates)
