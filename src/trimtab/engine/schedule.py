"""The learning rate at each weight update."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.planning.curve import learning_rates
from trimtab.planning.settings import Settings


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rates by weight update: `rates[i]` is used by update i (0-based).

    A table has no state to advance, so a micro-batch or a skipped fp16 step cannot move it.
    """

    rates: tuple[float, ...]

    def rate(self, num_updates_done: int) -> float:
        return self.rates[min(num_updates_done, len(self.rates) - 1)]


def make_schedule(settings: Settings) -> Schedule:
    """The rates of the plan, one for every update of the run."""
    return Schedule(learning_rates(settings))
