"""Where each value was set, and which layer won."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trimtab.hyperparameters.config import TrainingConfig

Layer = Literal["default", "file", "python", "command line"]


@dataclass(frozen=True, slots=True)
class Origin:
    """The layer that set a value; `where` is `config.yaml:12` or `--learning-rate`."""

    layer: Layer
    where: str | None = None


@dataclass(frozen=True, slots=True)
class Overruled:
    """A value that was set and lost: to a later layer, or to the named rival field `by`."""

    name: str
    value: Any
    origin: Origin
    by: str
    because: str


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """The configuration after all layers, with the origin of every field.

    An overruled rival (`max_steps` under `num_train_epochs`, `warmup_ratio` under a later
    `warmup_steps`) is back at its unset value in `config` and listed in `overruled`.
    """

    config: TrainingConfig
    origins: Mapping[str, Origin]
    overruled: tuple[Overruled, ...] = ()

    def is_set(self, name: str) -> bool:
        """Did the user set this field?"""
        return self.origins[name].layer != "default"
