"""A device that answers every question of a plan by formulas of its own.

Its memory and its speed differ from what arithmetic expects, so that a plan which is right about
them has learnt it from the trials.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from planning.facts import CPU, DATA, LLAMA_135M, as_facts, rows_for

from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.discarding import with_answer
from trimtab.planning.effort import Effort
from trimtab.planning.fact import Fact, Facts
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.plan import Plan
from trimtab.planning.planner import make_plan
from trimtab.planning.questions import (
    NoiseScaleQuestion,
    PrecisionQuestion,
    Question,
    RateRangeQuestion,
    RunQuestion,
    TrainingRowsQuestion,
    Trial,
    TrialsQuestion,
)
from trimtab.planning.rules.memory import Checkpointing, num_recomputing_layers

MB = 10**6
BASE_BYTES = 300 * MB
PROCESS_BYTES = 400 * MB
LOADED_BYTES = 900 * MB


@dataclass
class Simulated:
    """The rows are all `length` tokens long, `scored` of them trained on.

    bytes_per_token: kept by 30 layers; deadly_bytes: a trial above it kills its process.
    """

    length: int = 200
    scored: int = 80
    bytes_per_token: float = 2.0 * MB
    waste_per_token: float = 0.4 * MB
    bytes_per_scored: float = 0.6 * MB
    accumulation_bytes: float = 150.0 * MB
    tokens_per_s: float = 700.0
    starting_s: float = 0.05
    optimizer_s: float = 0.2
    recompute_share: float = 0.35
    probe_s: float = 12.0
    noise_s: float = 100.0
    deadly_bytes: float = 1e15
    noise: Mapping[str, Any] = field(default_factory=lambda: {"failure": "it was killed"})
    cosine: float = 0.999
    bf16_s: float = 1.0
    asked: list[Question] = field(default_factory=list)

    def peak_bytes(
        self, size: MicroBatchSize, checkpointing: Checkpointing, accumulates: bool
    ) -> float:
        kept = 1 - num_recomputing_layers(30, checkpointing) / 30
        per_token = kept * self.bytes_per_token + (1 - kept) * self.waste_per_token
        return (
            600 * MB
            + size.num_tokens * per_token
            + size.num_scored * self.bytes_per_scored
            + accumulates * self.accumulation_bytes
        )

    def update_s(
        self, size: MicroBatchSize, num_micro_batches: float, checkpointing: Checkpointing
    ) -> float:
        recomputed = num_recomputing_layers(30, checkpointing) / 30
        seconds = size.num_tokens / self.tokens_per_s * (1 + self.recompute_share * recomputed)
        return self.optimizer_s + num_micro_batches * (self.starting_s + seconds)

    def size(self, num_rows: float) -> MicroBatchSize:
        return MicroBatchSize(
            num_rows * self.length, num_rows * self.scored, num_rows * self.length**2
        )

    def answer(self, question: Question, known: Mapping[str, Any]) -> Iterable[Fact]:
        self.asked.append(question)
        match question:
            case TrainingRowsQuestion():
                lists = {
                    "length_max": self.length,
                    "trainable_length_max": self.scored,
                    "longest_lengths": [self.length] * 256,
                    "most_scored": [self.scored] * 256,
                }
                return as_facts(rows_for(question, known, lists))
            case TrialsQuestion():
                return self._trials(question, known)
            case PrecisionQuestion():
                return self._precision(question)
            case RateRangeQuestion():
                losses = [[rate, 2.0] for rate in question.rates]
                return _costly(
                    self.probe_s,
                    {
                        "rate_range.key": question.key,
                        "rate_range.losses": losses,
                        "rate_range.diverging_rate": None,
                    },
                )
            case NoiseScaleQuestion():
                told = {f"noise.{name}": value for name, value in self.noise.items()}
                return _costly(self.noise_s, {"noise.key": question.key} | told)
            case RunQuestion(settings):
                micro = self.size(settings.per_device_train_batch_size)
                rows = settings.global_batch_size
                return as_facts(
                    {
                        "run.key": question.key,
                        "run.micro_batches": [list(asdict(micro).values())],
                        "run.num_micro_batches": settings.num_train_steps
                        * settings.gradient_accumulation_steps,
                        "run.num_tokens": rows * self.length,
                        "run.num_scored": rows * self.scored,
                        "run.sum_length_squared": rows * self.length**2,
                    }
                )
        raise AssertionError(question)

    def _trials(self, question: TrialsQuestion, known: Mapping[str, Any]) -> Iterable[Fact]:
        points = list(known.get("trials.points", ()))
        for trial in question.trials:
            size = self.size(trial.num_rows)
            accumulates = trial.num_micro_batches > 1
            option = trial.activation_checkpointing
            peak = self.peak_bytes(size, option, accumulates) - PROCESS_BYTES + BASE_BYTES
            seconds = self.update_s(size, trial.num_micro_batches, option)
            died = peak > self.deadly_bytes
            outcome = {
                "update_s": [] if died else [seconds, seconds],
                "peak_bytes": None if died else round(peak),
            }
            points.append(asdict(trial) | asdict(size) | outcome)
            if died:
                break
        return _costly(
            self.probe_s,
            {
                "trials.key": question.key,
                "trials.process_bytes": PROCESS_BYTES,
                "trials.base_bytes": BASE_BYTES,
                "trials.loaded_bytes": LOADED_BYTES,
                "trials.points": points,
            },
        )

    def _precision(self, question: PrecisionQuestion) -> Iterable[Fact]:
        values: dict[str, Any] = {"precision.key": question.key}
        for name in question.precisions:
            exact = name == "fp32"
            values |= {
                f"precision.update_s.{name}": 2.0 if exact else self.bf16_s,
                f"precision.gradient_cosine.{name}": 1.0 if exact else self.cosine,
                f"precision.gradient_norm_ratio.{name}": 1.0,
                f"precision.overflows.{name}": False,
                f"precision.lost_update_share.{name}": 0.0,
            }
        return _costly(self.probe_s, values)


def _costly(cost_s: float, values: Mapping[str, Any]) -> Iterable[Fact]:
    (key, value), *others = values.items()
    yield Fact(key, value, method="simulated", cost_s=cost_s)
    yield from as_facts(dict(others))


def measured(
    resolved: ResolvedConfig,
    device: Simulated,
    *,
    effort: Effort,
    known: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan after every question that it asks was answered by the simulated device."""
    facts = as_facts(CPU | LLAMA_135M | DATA | {"data.length_max": device.length} | (known or {}))
    for _ in range(12):
        answer = make_plan(resolved, facts, output_dir="runs/r", effort=effort)
        if isinstance(answer, Plan):
            return answer
        for question in answer:
            values = {fact.id: fact.value for fact in facts}
            facts = with_answer(facts, device.answer(question, values))
    raise AssertionError("the planner goes on asking")


def trials_asked(device: Simulated) -> list[Trial]:
    return [
        trial
        for question in device.asked
        if isinstance(question, TrialsQuestion)
        for trial in question.trials
    ]


def facts_of(plan: Plan) -> Facts:
    return Facts().adding(plan.facts)
