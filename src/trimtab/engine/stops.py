"""Why the engine stopped, for whoever decides how to go on. The weights are as told in each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from trimtab.data.updates import DataPosition
    from trimtab.engine.guard import Fault


class UpdateStopped(Exception):
    """The guard stopped at an update, which was not applied unless the fault is `diverged`.

    `row_ids` are the examples of its batch; `next_position` and `epoch` are where the data stands
    once they are passed over, None where no update was under way.
    """

    def __init__(
        self,
        fault: Fault,
        reason: str,
        step: int,
        row_ids: tuple[int, ...],
        *,
        next_position: DataPosition | None = None,
        epoch: float | None = None,
    ) -> None:
        super().__init__(f"update {step}: {reason}")
        self.fault = fault
        self.reason = reason
        self.step = step
        self.row_ids = row_ids
        self.next_position = next_position
        self.epoch = epoch


MemoryPhase = Literal["update", "optimizer step", "held-out pass"]


class RanOutOfMemory(Exception):
    """Memory ran out; gradients are dropped and the random states are those of the update's start.

    In an `update` and a `held-out pass` weights and optimizer state are what they were. In an
    `optimizer step` some weights may have moved already and others not. num_tokens and
    num_scored: of the update's largest micro-batch.
    """

    def __init__(
        self,
        phase: MemoryPhase,
        step: int,
        row_ids: tuple[int, ...] = (),
        *,
        num_tokens: int = 0,
        num_scored: int = 0,
    ) -> None:
        super().__init__(f"update {step}: memory ran out in the {phase}")
        self.phase = phase
        self.step = step
        self.row_ids = row_ids
        self.num_tokens = num_tokens
        self.num_scored = num_scored


class StopRequested(Exception):
    """Somebody asked the run to stop; it stands at an update's end and is saved."""
