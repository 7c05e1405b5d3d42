"""Hyperparameters as coordinates: logarithms (or plain numbers), scaled so that ranges are [-1, 1].

Shapes: N points, D hyperparameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from trimtab.search.surrogate import Array


@dataclass(frozen=True, slots=True)
class Axis:
    """One hyperparameter's range; `is_whole` where it takes whole numbers alone."""

    name: str
    low: float
    high: float
    log: bool
    is_whole: bool

    def scaled(self, value: float) -> float:
        """From a value of the range to [-1, 1]."""
        low, high, at = (self._transformed(each) for each in (self.low, self.high, value))
        return 2 * (at - low) / (high - low) - 1

    def value(self, scaled: float) -> float | int:
        """From [-1, 1] to a value that the range holds."""
        low, high = self._transformed(self.low), self._transformed(self.high)
        at = low + (scaled + 1) / 2 * (high - low)
        value = min(max(math.exp(at) if self.log else at, self.low), self.high)
        return round(value) if self.is_whole else float(value)

    def _transformed(self, value: float) -> float:
        return math.log(value) if self.log else value


def axis_of(name: str, distribution: BaseDistribution) -> Axis | None:
    """The axis of a numeric distribution; None for one of categories, steps or a single value."""
    if distribution.single():
        return None
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=None):
            return Axis(name, low, high, log, is_whole=False)
        case IntDistribution(low=low, high=high, log=log, step=1):
            return Axis(name, low, high, log, is_whole=True)
        case _:
            return None


def points(axes: Sequence[Axis], settings: Sequence[Mapping[str, float]]) -> Array:
    """Settings as scaled points of shape (N, D)."""
    rows = [[axis.scaled(values[axis.name]) for axis in axes] for values in settings]
    return np.array(rows, dtype=np.float64).reshape(len(settings), len(axes))


def values(axes: Sequence[Axis], point: Array) -> dict[str, float | int]:
    """A scaled point of shape (D,) as settings."""
    return {axis.name: axis.value(float(at)) for axis, at in zip(axes, point, strict=True)}
