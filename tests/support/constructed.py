"""Constructed answers to questions on weight updates, so that a plan needs no measuring process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from trimtab.engine.observer import Silent
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.planning.fact import Fact
from trimtab.planning.questions import (
    NoiseScaleQuestion,
    PrecisionQuestion,
    Question,
    RateRangeQuestion,
    RunQuestion,
    TrialsQuestion,
)
from trimtab.workflow.light import LightMaterials

MIB = 2**20


class ConstructedMaterials:
    """Files are read as for a quick plan; what an update would tell is made up, and counted."""

    def __init__(self, config: TrainingConfig) -> None:
        self._light = LightMaterials(config, Silent())
        self.asked: list[str] = []

    def answer(self, question: Question) -> Iterator[Fact]:
        self.asked.append(type(question).__name__)
        match question:
            case TrialsQuestion():
                yield from _facts("trials", question.key, _trials(question))
            case PrecisionQuestion():
                yield from _facts("precision", question.key, _precisions(question))
            case RateRangeQuestion():
                losses = [[rate, 3.0] for rate in question.rates]
                values = {"losses": losses, "diverging_rate": None}
                yield from _facts("rate_range", question.key, values)
            case NoiseScaleQuestion():
                ends = {"low_examples": 33.0, "high_examples": 60.0, "num_updates": 20}
                yield from _facts("noise", question.key, {"scale_examples": 40.0, **ends})
            case RunQuestion(settings):
                size = [400, 200, 40_000]
                num_micro_batches = settings.num_train_steps * settings.gradient_accumulation_steps
                values = {"micro_batches": [size], "num_micro_batches": num_micro_batches}
                values |= dict(
                    zip(("num_tokens", "num_scored", "sum_length_squared"), size, strict=True)
                )
                yield from _facts("run", question.key, values)
            case _:
                yield from self._light.answer(question)


def _facts(name: str, key: str, values: dict[str, Any]) -> Iterator[Fact]:
    yield Fact(f"{name}.key", key, method="constructed", cost_s=1.0)
    for each, value in values.items():
        yield Fact(f"{name}.{each}", value, method="constructed")


def _trials(question: TrialsQuestion) -> dict[str, Any]:
    points = [
        {
            **asdict(trial),
            "num_tokens": 50 * trial.num_rows,
            "num_scored": 25 * trial.num_rows,
            "sum_length_squared": 2500 * trial.num_rows,
            "update_s": [0.01 * trial.num_rows] * 2,
            "peak_bytes": (300 + trial.num_rows) * MIB,
        }
        for trial in question.trials
    ]
    return {
        "process_bytes": 200 * MIB,
        "base_bytes": 200 * MIB,
        "loaded_bytes": 250 * MIB,
        "points": points,
    }


def _precisions(question: PrecisionQuestion) -> dict[str, Any]:
    measures = {
        "update_s": 0.1,
        "gradient_cosine": 1.0,
        "gradient_norm_ratio": 1.0,
        "overflows": False,
        "lost_update_share": 0.0,
    }
    return {
        f"{measure}.{precision}": value
        for precision in question.precisions
        for measure, value in measures.items()
    }
