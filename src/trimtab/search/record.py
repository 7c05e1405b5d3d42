"""What a finished search writes down, for the page and for whoever asks later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from trimtab.search.paired import PairedDifference

TUNE_FORMAT = 2


@dataclass(frozen=True, slots=True)
class TriedRun:
    """One run of a search. `to_lowest` is against the one with the lowest loss, on the rows that
    the search sees.

    search_loss: nats per trainable token over those rows. is_start: the plan's own values.
    is_short: of the second, shorter length.
    """

    number: int
    values: Mapping[str, float]
    search_loss: float | None
    to_lowest: PairedDifference | None
    diverged: str | None
    is_start: bool
    is_short: bool
    num_steps: int
    num_tokens: int
    num_eval_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Horizon:
    """How the best rate moves with the length of a run: in proportion to length ** exponent.

    low, high: a 90% interval. Where it holds 0 the exponent is not identified, and not used.
    """

    exponent: float
    low: float
    high: float
    num_steps: int
    short_num_steps: int

    @property
    def is_identified(self) -> bool:
        return not self.low <= 0 <= self.high

    @property
    def cautious_exponent(self) -> float:
        """The interval's end nearer to 0: a planned run lies far beyond the lengths measured."""
        return min(self.low, self.high, key=abs)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of all runs of a search. share_of_run: their tokens by those of the planned run."""

    num_tokens: int
    num_eval_tokens: int
    seconds: float
    share_of_run: float


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What a search came to.

    folder: where its files lie. start: the plan's values before it. best: of the runs that are
    equal to the lowest loss, the values of the one at which the fitted curve is lowest; None where
    every run diverged. values: what is taken, `start` unless `is_changed`. plateau: by name, the
    lowest and highest tried value that is equal to the lowest loss within noise. region: by name,
    bounds that hold the best value at 90%, where the runs say so much. test: the best against the
    start, on rows that the search never saw; None where the best is the start, or the start was not
    run. facts_kept: the next plan uses what was found; not_kept: why it does not. options: with
    which training is what the runs were.
    """

    folder: str
    model: str
    method: str
    names: tuple[str, ...]
    start: Mapping[str, float]
    best: Mapping[str, float] | None
    values: Mapping[str, float]
    is_changed: bool
    verdict: str
    runs: tuple[TriedRun, ...]
    plateau: Mapping[str, tuple[float, float]]
    region: Mapping[str, tuple[float, float]]
    test: PairedDifference | None
    horizon: Horizon | None
    cost: Cost
    num_steps: int
    run_num_steps: int
    num_search_rows: int
    num_test_rows: int
    sampler: str
    seed: int
    facts_kept: bool
    not_kept: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        record = {"format": TUNE_FORMAT, **asdict(self)}
        if self.horizon is not None:
            record["horizon"]["is_identified"] = self.horizon.is_identified
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TuneResult:
        """What `to_json` wrote. Raises ValueError for another format number."""
        if record["format"] != TUNE_FORMAT:
            raise ValueError(f"tune format {record['format']}, expected {TUNE_FORMAT}")
        values = {name: value for name, value in record.items() if name != "format"}
        horizon = dict(record["horizon"] or {})
        horizon.pop("is_identified", None)
        return cls(
            **{
                **values,
                "names": tuple(record["names"]),
                "runs": tuple(_tried(each) for each in record["runs"]),
                "plateau": _pairs(record["plateau"]),
                "region": _pairs(record["region"]),
                "test": None if record["test"] is None else PairedDifference(**record["test"]),
                "horizon": Horizon(**horizon) if horizon else None,
                "cost": Cost(**record["cost"]),
            }
        )


def _tried(record: Mapping[str, Any]) -> TriedRun:
    to_lowest = record["to_lowest"]
    return TriedRun(
        **{**record, "to_lowest": None if to_lowest is None else PairedDifference(**to_lowest)}
    )


def _pairs(record: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    return {name: (low, high) for name, (low, high) in record.items()}
