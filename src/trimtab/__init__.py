"""Fine-tune a language model with every hyperparameter decided by a measurement.

    import trimtab

    plan = trimtab.plan({"model": "SmolLM2-135M", "dataset": "rows.jsonl"})
    summary = trimtab.train(plan)
    answers = trimtab.generate(summary.run, ["What is a trim tab?"])

Names are loaded when they are first used, so that `import trimtab` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.errors import (
        ConfigError,
        DataError,
        DoesNotFit,
        GuardStop,
        Interrupted,
        TrimtabError,
    )
    from trimtab.hyperparameters.config import TrainingConfig
    from trimtab.hyperparameters.rendering import explain
    from trimtab.interop.exporting import export_config
    from trimtab.interop.hub import push_to_hub
    from trimtab.interop.importing import import_config
    from trimtab.interop.results import export_result
    from trimtab.planning.forecast import Forecast
    from trimtab.planning.plan import Plan
    from trimtab.report.page import write_report
    from trimtab.search.record import TuneResult
    from trimtab.search.tuning import tune
    from trimtab.study import study, study_guide
    from trimtab.study.guide_result import GuideResult
    from trimtab.study.result import StudyResult
    from trimtab.workflow.demo import demo
    from trimtab.workflow.forecasting import forecast_plan
    from trimtab.workflow.generating import Answer, generate
    from trimtab.workflow.inspecting import Inspection, inspect
    from trimtab.workflow.planning import plan
    from trimtab.workflow.resuming import resume
    from trimtab.workflow.training import train

_HOMES = {
    "Answer": "trimtab.workflow.generating",
    "ConfigError": "trimtab.errors",
    "DataError": "trimtab.errors",
    "DoesNotFit": "trimtab.errors",
    "Forecast": "trimtab.planning.forecast",
    "GuardStop": "trimtab.errors",
    "GuideResult": "trimtab.study.guide_result",
    "Inspection": "trimtab.workflow.inspecting",
    "Interrupted": "trimtab.errors",
    "Plan": "trimtab.planning.plan",
    "StudyResult": "trimtab.study.result",
    "TrainingConfig": "trimtab.hyperparameters.config",
    "TrimtabError": "trimtab.errors",
    "TuneResult": "trimtab.search.record",
    "demo": "trimtab.workflow.demo",
    "explain": "trimtab.hyperparameters.rendering",
    "export_config": "trimtab.interop.exporting",
    "export_result": "trimtab.interop.results",
    "forecast_plan": "trimtab.workflow.forecasting",
    "generate": "trimtab.workflow.generating",
    "import_config": "trimtab.interop.importing",
    "inspect": "trimtab.workflow.inspecting",
    "plan": "trimtab.workflow.planning",
    "push_to_hub": "trimtab.interop.hub",
    "resume": "trimtab.workflow.resuming",
    "study": "trimtab.study",
    "study_guide": "trimtab.study",
    "train": "trimtab.workflow.training",
    "tune": "trimtab.search.tuning",
    "write_report": "trimtab.report.page",
}

__all__ = [
    "Answer",
    "ConfigError",
    "DataError",
    "DoesNotFit",
    "Forecast",
    "GuardStop",
    "GuideResult",
    "Inspection",
    "Interrupted",
    "Plan",
    "StudyResult",
    "TrainingConfig",
    "TrimtabError",
    "TuneResult",
    "demo",
    "explain",
    "export_config",
    "export_result",
    "forecast_plan",
    "generate",
    "import_config",
    "inspect",
    "plan",
    "push_to_hub",
    "resume",
    "study",
    "study_guide",
    "train",
    "tune",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trimtab' has no attribute {name!r}")
    from trimtab.models.lean_imports import uncollected

    with uncollected():
        return getattr(importlib.import_module(_HOMES[name]), name)
