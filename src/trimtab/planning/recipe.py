"""What a run may change while it goes on, and stay the same run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from trimtab.hyperparameters.config import Precision
from trimtab.planning.settings import Settings

DIVISION = frozenset({"per_device_train_batch_size", "gradient_accumulation_steps", "num_ranks"})
"""Whose product is the global batch."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings that decide in which pieces and format an update is computed.

    None of them changes which rows an update holds, their order, or how its loss is weighted.
    `num_ranks` is how many processes share them.
    """

    precision: Precision
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    per_device_eval_batch_size: int
    num_ranks: int
    activation_checkpointing: Literal["off", "full"] | int

    @classmethod
    def of(cls, settings: Settings) -> Recipe:
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    def applied_to(self, settings: Settings) -> Settings:
        return replace(settings, **self._values())

    def taking(self, settings: Settings, names: Collection[str]) -> Recipe:
        """With the settings' values of these names; the division of the batch changes as one."""
        taken = names & self._values().keys()
        if taken & DIVISION or "global_batch_size" in names:
            taken |= DIVISION
        return replace(self, **{name: getattr(settings, name) for name in taken})

    def changed_from(self, other: Recipe) -> tuple[str, ...]:
        """The names of the hyperparameters in which the two differ."""
        before = other._values()
        return tuple(name for name, value in self._values().items() if value != before[name])

    def _values(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}
