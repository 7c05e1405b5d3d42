"""What a study came to, as values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from trimtab.runs.non_finite import as_text, from_text
from trimtab.study.statistics import Comparison, compare

if TYPE_CHECKING:
    from trimtab.workflow.trial_runs import TrialRun


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One value of the hyperparameter, over the seeds of the study.

    value: as the configuration takes it. losses: mean held-out loss of each seed's run in nats per
    trainable token, infinite where the run came to none; failures: why, by seed, None where it
    did. seconds: the mean of a run's updates. peak_memory_bytes: the highest of all runs.
    curves: training loss of each update, by seed. num_tokens: trained on in a run. learning_rate:
    of its runs. comparison: against the reference, None for the reference itself.
    """

    value: Any
    losses: tuple[float, ...]
    failures: tuple[str | None, ...]
    seconds: float
    peak_memory_bytes: int
    num_tokens: int
    learning_rate: float
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
            num_tokens=record["num_tokens"],
            learning_rate=record["learning_rate"],
            curves=tuple(tuple(curve) for curve in record["curves"]),
            comparison=None if comparison is None else Comparison.from_json(comparison),
        )


@dataclass(frozen=True, slots=True)
class StudyResult:
    """result.json: the arms in the order asked, the first of which is the reference.

    num_steps: weight updates of the reference's runs. rate_may_move: each value may have a best
    learning rate of its own, which `is_retuned` runs have searched for.
    """

    folder: str
    name: str
    arms: tuple[ArmResult, ...]
    seeds: tuple[int, ...]
    num_steps: int
    equivalence_margin: float
    rate_may_move: bool
    is_retuned: bool
    device: str

    def to_json(self) -> dict[str, Any]:
        scalars = {name: getattr(self, name) for name in _SCALARS}
        return {
            "arms": [arm.to_json() for arm in self.arms],
            "seeds": list(self.seeds),
            **scalars,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> StudyResult:
        return cls(
            arms=tuple(ArmResult.from_json(arm) for arm in record["arms"]),
            seeds=tuple(record["seeds"]),
            **{name: record[name] for name in _SCALARS},
        )


_SCALARS = (
    "folder",
    "name",
    "num_steps",
    "equivalence_margin",
    "rate_may_move",
    "is_retuned",
    "device",
)


def arm_results(
    values: Sequence[Any],
    runs: Sequence[Sequence[TrialRun]],
    learning_rates: Sequence[float],
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
            seconds=math.fsum(one.seconds for one in runs[position]) / len(runs[position]),
            peak_memory_bytes=max(one.peak_memory_bytes for one in runs[position]),
            num_tokens=max(one.num_tokens for one in runs[position]),
            learning_rate=learning_rates[position],
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


def _loss(run: TrialRun) -> float:
    return math.inf if run.eval_loss is None else run.eval_loss


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
