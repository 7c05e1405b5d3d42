"""Which micro-batch and checkpointing to take, by memory and speed."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.planning.device_sheets import is_elsewhere
from trimtab.planning.fact import Facts
from trimtab.planning.peak_memory import PeakMemory
from trimtab.planning.predictions import Speed
from trimtab.planning.questions import Trial
from trimtab.planning.rules.global_batch import GivenSizes, Target
from trimtab.planning.rules.memory import Checkpointing, num_recomputing_layers

MIN_BUSY_TOKENS = {"cpu": 1, "cuda": 512}
"""Tokens of a micro-batch below which a device waits for weights to be read rather than multiplies:
a weight of two bytes is used twice a token, and cards do 200–300 operations in the time of a byte.
"""
LADDER: tuple[Checkpointing, ...] = ("off", 2, "full")
NEAR_BEST = 0.97
"""The smallest micro-batch that reaches this share of the best speed is taken: the rest is within
what two timings of the same update differ by."""
MEMORY_MARGIN = 0.05
"""What a prediction may be under the truth by; auto keeps so much of the limit free."""


@dataclass(frozen=True, slots=True)
class MemoryRoom:
    """One rank's part of a memory that `num_sharing` ranks are on.

    limit_bytes: what the plan keeps under; ceiling_bytes: what cannot be had at all; free_bytes
    and device_bytes: what is free when the plan is made, and what there is.
    """

    limit_bytes: int
    ceiling_bytes: int
    free_bytes: int
    device_bytes: int
    num_sharing: int = 1

    def holds(self, peak_bytes: int) -> bool:
        """Whether a predicted peak stays under the limit with the margin for its error."""
        return peak_bytes * (1 + MEMORY_MARGIN) <= self.limit_bytes


@dataclass(frozen=True, slots=True)
class Choice:
    """What the sizes are chosen from and by; `speed` is None where the device was not timed.

    died: trials that their processes did not survive.
    """

    given: GivenSizes
    target: Target
    candidates: tuple[int, ...]
    ladder: tuple[Checkpointing, ...]
    memory: PeakMemory
    room: MemoryRoom
    speed: Speed | None
    died: tuple[Trial, ...] = ()

    @property
    def is_timed(self) -> bool:
        return self.speed is not None and bool(self.speed.time.fits)

    @property
    def is_by_speed(self) -> bool:
        """Whether the micro-batch is chosen by its speed: timed, or of a device that is elsewhere,
        where nothing else will be known. Where it decides the global batch, speed has no say."""
        is_known = self.is_timed or is_elsewhere(self.memory.facts)
        return is_known and self.memory.accumulation is None

    def fits(self, size: int, checkpointing: Checkpointing) -> bool:
        """By prediction, and by no trial of as much having died."""
        return self.room.holds(
            self.memory.worst_case_bytes(size, checkpointing)
        ) and not self.has_died(size, checkpointing)

    def has_died(self, size: int, checkpointing: Checkpointing) -> bool:
        """Whether a trial of no more rows, which kept no more activations, died."""
        num_layers = self.memory.arithmetic.num_layers
        return any(
            trial.num_rows <= size
            and num_recomputing_layers(num_layers, trial.activation_checkpointing)
            >= num_recomputing_layers(num_layers, checkpointing)
            for trial in self.died
        )

    def tokens_per_s(self, size: int, checkpointing: Checkpointing) -> float:
        assert self.speed is not None
        rows = self.memory.rows_in_update(size)
        return self.speed.tokens_per_s(rows, size, checkpointing)


def choose(choice: Choice, facts: Facts) -> tuple[int, Checkpointing]:
    """By speed where that says something; else the largest that fits."""
    if choice.is_by_speed:
        fastest = _near_the_fastest(choice)
        if fastest is not None:
            return fastest
    return _largest_that_fits(choice, _least_busy_rows(facts))


def _near_the_fastest(choice: Choice) -> tuple[int, Checkpointing] | None:
    """The least recomputation, and then the smallest size, that is near the best speed."""
    fitting = [
        (option, size)
        for option in choice.ladder
        for size in sorted(choice.candidates)
        if choice.fits(size, option)
    ]
    if not fitting:
        return None
    speeds = {pair: choice.tokens_per_s(pair[1], pair[0]) for pair in fitting}
    best = max(speeds.values())
    option, size = next(pair for pair in fitting if speeds[pair] >= NEAR_BEST * best)
    return size, option


def _largest_that_fits(choice: Choice, least_busy_rows: float) -> tuple[int, Checkpointing]:
    """Recomputing less comes before a larger micro-batch, as long as the device is kept busy.

    Where nothing fits, the pair that needs least.
    """
    candidates = choice.candidates
    busy = tuple(size for size in candidates if size >= least_busy_rows) or candidates[:1]
    for sizes in (busy, candidates):
        for checkpointing in choice.ladder:
            for size in sizes:
                if choice.fits(size, checkpointing):
                    return size, checkpointing
    return candidates[-1], choice.ladder[-1]


def _least_busy_rows(facts: Facts) -> float:
    tokens_per_row = facts.number("rows.num_tokens") / facts.number("rows.num_rows")
    return MIN_BUSY_TOKENS[facts.text("device.kind")] / tokens_per_row
