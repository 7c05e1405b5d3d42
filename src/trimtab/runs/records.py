"""The shapes of what a run folder holds, as frozen values with their JSON.

`from_json` raises KeyError, TypeError or ValueError for a record of another shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from trimtab.runs.non_finite import as_text, from_text

Status = Literal["running", "done", "stopped", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """A line of metrics.jsonl for a weight update.

    loss: nats per trainable token over the whole batch. num_tokens: non-pad tokens. grad_norm:
    before clipping. epoch: epochs seen, a fraction inside one. first_micro_batch_grad_norm: of the
    mean gradient over the first micro-batch's own trainable tokens; it and its number of examples
    are None where one micro-batch is the whole update. Records of versions that did not measure
    these lack the last three.
    """

    step: int
    epoch: float
    loss: float
    num_tokens: int
    num_trainable_tokens: int
    learning_rate: float
    grad_norm: float
    seconds: float
    tokens_per_s: float
    peak_memory_bytes: int
    num_examples: int | None = None
    first_micro_batch_num_examples: int | None = None
    first_micro_batch_grad_norm: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> UpdateRecord:
        return cls(**record)


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """A line of metrics.jsonl for an evaluation; step 0 is before the first update."""

    step: int
    eval_loss: float
    num_eval_tokens: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> EvaluationRecord:
        return cls(**record)


@dataclass(frozen=True, slots=True)
class EventRecord:
    """A line of events.jsonl: a guard action, a recovery, a checkpoint, a change of recipe."""

    event: str
    step: int
    details: Mapping[str, Any] = field(default_factory=dict)
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> EventRecord:
        return cls(**record)


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of a row's text whose tokens are all trained on, or all not."""

    text: str
    trained: bool


@dataclass(frozen=True, slots=True)
class DataRecord:
    """data.json: what the run is trained on. Lengths and counts are tokens.

    histogram_edges has one entry more than histogram_counts; both are of whole rows, before
    anything is cut. examples are a few decoded training rows; templated says whether the rows were
    put through the chat template. num_tokenised: rows that tokens, lengths and cuts are estimated
    from; None where all were counted.
    """

    format: str
    format_because: str
    template: str
    template_because: str
    templated: bool
    num_rows: int
    num_bad_rows: int
    num_duplicate_rows: int
    num_duplicates_of_held_out: int
    num_train_examples: int
    num_eval_examples: int
    num_tokens: int
    num_trainable_tokens: int
    num_truncated: int
    num_tokens_cut: int
    num_trainable_tokens_cut: int
    num_dropped: int
    histogram_edges: tuple[float, ...]
    histogram_counts: tuple[int, ...]
    examples: tuple[tuple[Segment, ...], ...]
    num_tokenised: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> DataRecord:
        examples = tuple(tuple(Segment(**item) for item in row) for row in record["examples"])
        return cls(
            **{
                **record,
                "histogram_edges": tuple(record["histogram_edges"]),
                "histogram_counts": tuple(record["histogram_counts"]),
                "examples": examples,
            }
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """A held-out prompt with its reference and what the base and the tuned model answer."""

    prompt: str
    reference: str
    base: str | None
    tuned: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Sample:
        return cls(**record)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """summary.json: how the run stands, always true on disk; losses in nats per trainable token.

    `eval_loss` is of the weights that were kept (`best_step`). `decisions_changed` names the
    hyperparameters that the run went on with other values of. `num_skipped_updates` counts updates
    whose rows were passed over after loss spikes, `num_rewinds` how often the run went back for
    one. `result` names the folder of the adapter or model inside the run folder, None where
    nothing is handed over. `versions` are by package. A loss that is not finite stays, as
    `non_finite` writes it.
    """

    status: Status
    run: str
    num_steps: int
    num_tokens: int
    train_loss: float | None
    eval_loss: float | None
    base_eval_loss: float | None
    tokens_per_s: float | None
    peak_memory_bytes: int
    stopped_by: str | None
    decisions_changed: tuple[str, ...] = ()
    num_skipped_updates: int = 0
    num_rewinds: int = 0
    best_step: int | None = None
    seconds: float | None = None
    result: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = as_text(asdict(self))
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> RunSummary:
        record = from_text(record)
        return cls(**{**record, "decisions_changed": tuple(record["decisions_changed"])})
