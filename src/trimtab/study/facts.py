"""A study's verdicts as a fact that later plans of the same model, rows and method show."""

from __future__ import annotations

from trimtab.hyperparameters.config import TrainingConfig
from trimtab.planning.fact import Fact
from trimtab.planning.rules.studied import study_fact_id
from trimtab.study.result import StudyResult
from trimtab.study.words import steps_text, study_sentence
from trimtab.workflow.recalling import remember_study_fact


def study_fact(result: StudyResult) -> Fact:
    """`cost_s` is the time of the updates; scoring is not in it."""
    arms = [
        {
            "value": arm.value,
            "verdict": arm.verdict,
            "effect_nats": None if arm.comparison is None else arm.comparison.effect_nats,
            "interval": None if arm.comparison is None else arm.comparison.interval,
        }
        for arm in result.arms
    ]
    return Fact(
        study_fact_id(result.name),
        {"told": study_sentence(result), "arms": arms},
        device=result.device,
        method=f"paired runs over {len(result.seeds)} seeds, {steps_text(result)} each",
        cost_s=sum(arm.seconds or 0.0 for arm in result.arms) * len(result.seeds),
    )


def remember_study(config: TrainingConfig, result: StudyResult) -> None:
    """Keep the study's fact; that of an earlier study of the same hyperparameter goes."""
    remember_study_fact(config, study_fact(result))
