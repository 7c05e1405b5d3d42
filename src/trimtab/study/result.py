"""What a study came to, as values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from trimtab.runs.non_finite import as_text, from_text
from trimtab.study.statistics import ALPHA, Comparison, compare

if TYPE_CHECKING:
    from trimtab.study.retuning import ArmRate
    from trimtab.workflow.trial_runs import TrialRun


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One value of the hyperparameter, over the seeds of the study.

    value: as the configuration takes it. losses: mean held-out loss of each seed's run in nats per
    trainable token, infinite where the run came to none; failures: why, by seed, None where it
    did. seconds: of a run's updates, the mean of the runs that came to a loss; peak_memory_bytes:
    the highest of all runs; each None where no run told it. num_steps: weight updates of a run;
    curves: training loss of each, by seed. num_tokens: trained on in a run. learning_rate: of its
    runs; rate_at_edge where it was searched for and is an end of what was tried. comparison:
    against the reference, None for the reference itself.
    """

    value: Any
    losses: tuple[float, ...]
    failures: tuple[str | None, ...]
    seconds: float | None
    peak_memory_bytes: int | None
    num_steps: int
    num_tokens: int
    learning_rate: float
    rate_at_edge: bool
    curves: tuple[tuple[float, ...], ...]
    comparison: Comparison | None

    @property
    def mean_loss(self) -> float | None:
        """None where a run came to no loss."""
        mean = math.fsum(self.losses) / len(self.losses)
        return mean if math.isfinite(mean) else None

    @property
    def verdict(self) -> str | None:
        return None if self.comparison is None else self.comparison.verdict

    def to_json(self) -> dict[str, Any]:
        """The keys that the command prints first, then the rest."""
        comparison = self.comparison
        told = {
            "value": self.value,
            "verdict": self.verdict,
            "effect_nats": None if comparison is None else comparison.effect_nats,
            "interval": None if comparison is None else comparison.interval,
        }
        record: dict[str, Any] = as_text({**told, **asdict(self)})
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ArmResult:
        record = {name: from_text(value) for name, value in record.items()}
        comparison = record["comparison"]
        return cls(
            value=_frozen(record["value"]),
            losses=tuple(record["losses"]),
            failures=tuple(record["failures"]),
            seconds=record["seconds"],
            peak_memory_bytes=record["peak_memory_bytes"],
            num_steps=record["num_steps"],
            num_tokens=record["num_tokens"],
            learning_rate=record["learning_rate"],
            rate_at_edge=record["rate_at_edge"],
            curves=tuple(tuple(curve) for curve in record["curves"]),
            comparison=None if comparison is None else Comparison.from_json(comparison),
        )


@dataclass(frozen=True, slots=True)
class StudyResult:
    """result.json: the arms in the order asked, the first of which is the reference.

    rate_may_move: each value may have a best learning rate of its own, which `is_retuned` runs have
    searched for. earlier_seeds: the numbers of seeds over which values of it were compared with
    the reference before. moved_along: other settings that the values moved, by their name, one
    value for each arm.
    """

    folder: str
    name: str
    arms: tuple[ArmResult, ...]
    seeds: tuple[int, ...]
    equivalence_margin: float
    rate_may_move: bool
    is_retuned: bool
    device: str
    earlier_seeds: tuple[int, ...] = ()
    moved_along: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def num_steps(self) -> tuple[int, int]:
        """The fewest and the most weight updates of a run."""
        numbers = [arm.num_steps for arm in self.arms]
        return min(numbers), max(numbers)

    @property
    def interval_level(self) -> float:
        """Of each interval: that at which all of them hold together at 95%."""
        return 1 - ALPHA / (len(self.arms) - 1)

    def to_json(self) -> dict[str, Any]:
        scalars = {name: getattr(self, name) for name in _SCALARS}
        return {
            "arms": [arm.to_json() for arm in self.arms],
            "seeds": list(self.seeds),
            "earlier_seeds": list(self.earlier_seeds),
            "moved_along": {name: list(values) for name, values in self.moved_along.items()},
            **scalars,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> StudyResult:
        return cls(
            arms=tuple(ArmResult.from_json(arm) for arm in record["arms"]),
            seeds=tuple(record["seeds"]),
            earlier_seeds=tuple(record["earlier_seeds"]),
            moved_along={
                name: tuple(map(_frozen, values)) for name, values in record["moved_along"].items()
            },
            **{name: record[name] for name in _SCALARS},
        )


_SCALARS = (
    "folder",
    "name",
    "equivalence_margin",
    "rate_may_move",
    "is_retuned",
    "device",
)


def arm_results(
    values: Sequence[Any],
    runs: Sequence[Sequence[TrialRun]],
    learning_rates: Sequence[ArmRate],
    *,
    equivalence_margin: float,
) -> tuple[ArmResult, ...]:
    """The arms' results; `runs[a][s]` is of arm a and seed s, and arm 0 is the reference.

    Raises AssertionError where two runs were not scored on the same tokens.
    """
    scored = {one.row_num_trainable_tokens for arm in runs for one in arm if one.diverged is None}
    assert len(scored) <= 1, "all runs of a study are scored on the same tokens"
    losses = [[_loss(one) for one in arm] for arm in runs]
    return tuple(
        ArmResult(
            value=value,
            losses=tuple(losses[position]),
            failures=tuple(one.diverged for one in runs[position]),
            seconds=_mean_seconds(runs[position]),
            peak_memory_bytes=max(one.peak_memory_bytes for one in runs[position]) or None,
            num_steps=runs[position][0].num_steps,
            num_tokens=max(one.num_tokens for one in runs[position]),
            learning_rate=learning_rates[position].rate,
            rate_at_edge=learning_rates[position].is_edge,
            curves=tuple(one.update_losses for one in runs[position]),
            comparison=None
            if position == 0
            else compare(
                losses[0],
                losses[position],
                equivalence_margin=equivalence_margin,
                num_arms=len(values) - 1,
            ),
        )
        for position, value in enumerate(values)
    )


def _mean_seconds(runs: Sequence[TrialRun]) -> float | None:
    """Of whole runs: one that ended early did not take its time."""
    seconds = [one.seconds for one in runs if one.diverged is None]
    return math.fsum(seconds) / len(seconds) if seconds else None


def _loss(run: TrialRun) -> float:
    return math.inf if run.eval_loss is None else run.eval_loss


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
