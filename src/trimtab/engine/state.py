"""Where a run stands: everything that a checkpoint holds besides tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trimtab.data.updates import DataPosition
from trimtab.engine.guard import Guard
from trimtab.engine.precision import LossScale
from trimtab.planning.recipe import Recipe
from trimtab.runs.non_finite import as_text, from_text


@dataclass
class Totals:
    """Sums over the updates so far, whatever processes made them.

    `timed_` leaves out each process's first update, which also pays for warming up; `run_seconds`
    are those of all updates and evaluations.
    """

    num_tokens: int = 0
    loss_nats: float = 0.0
    num_trainable_tokens: int = 0
    timed_seconds: float = 0.0
    timed_tokens: int = 0
    run_seconds: float = 0.0

    def tokens_per_s(self) -> float | None:
        return self.timed_tokens / self.timed_seconds if self.timed_seconds > 0 else None


@dataclass
class TrainingState:
    """`num_updates` counts applied weight updates; `position` is where the data goes on.

    `recipe` is the one in force, which may be safer or smaller than the plan's.
    `evaluation_is_due`: a held-out pass was begun and did not come to its end.
    `num_skipped_updates`: updates whose rows
    were passed over after loss spikes; `num_rewinds`: how often the run went back for one.
    """

    recipe: Recipe
    num_updates: int = 0
    position: DataPosition = field(default_factory=lambda: DataPosition(0, 0))
    epoch: float = 0.0
    loss_scale: LossScale | None = None
    guard: Guard = field(default_factory=Guard)
    totals: Totals = field(default_factory=Totals)
    base_eval_loss: float | None = None
    eval_loss: float | None = None
    best_eval_loss: float | None = None
    best_step: int | None = None
    evaluation_is_due: bool = False
    num_rewinds: int = 0
    num_skipped_updates: int = 0

    def to_json(self) -> dict[str, Any]:
        record = asdict(self)
        record["guard"]["recent"] = list(self.guard.recent)
        text: dict[str, Any] = as_text(record)
        return text

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TrainingState:
        record = from_text(record)
        guard = Guard(**{**record["guard"], "recent": Guard().recent})
        guard.recent.extend(record["guard"]["recent"])
        scale, position = record["loss_scale"], record["position"]
        return cls(
            **{
                **record,
                "recipe": Recipe(**record["recipe"]),
                "position": DataPosition(**{**position, "carried": tuple(position["carried"])}),
                "loss_scale": None if scale is None else LossScale(**scale),
                "guard": guard,
                "totals": Totals(**record["totals"]),
            }
        )
