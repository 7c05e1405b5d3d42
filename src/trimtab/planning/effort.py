"""How much may be measured before a plan stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PLAN_LIMIT_S = 60.0
TRAIN_SHARE = 0.3
"""Of the run's predicted time, what `train` may spend on probes by itself."""


@dataclass(frozen=True, slots=True)
class Effort:
    """`quick` measures nothing; `measured` is a plan that was asked for, whose memory is measured
    in any case; `train` spends at most a share of the run that it is about to make.

    noise_scale: the gradient noise scale is probed too, whatever it takes.
    """

    kind: Literal["quick", "measured", "train"] = "measured"
    noise_scale: bool = False

    def limit_s(self, run_time_s: float | None) -> float:
        """Seconds that probes may take in all, that of the noise scale aside; `run_time_s` is the
        run's predicted time."""
        if self.kind == "quick":
            return 0.0
        if self.kind == "measured":
            return PLAN_LIMIT_S
        return 0.0 if run_time_s is None else TRAIN_SHARE * run_time_s


QUICK = Effort("quick")
MEASURED = Effort("measured")
TRAIN = Effort("train")
