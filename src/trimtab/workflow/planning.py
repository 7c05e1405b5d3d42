"""Plan, measure what the planner asks for, plan again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from trimtab.engine.observer import Observer, Silent
from trimtab.engine.schedule import make_schedule
from trimtab.hyperparameters.catalogue import catalogue
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.hyperparameters.layers import ResolvedConfig, resolve
from trimtab.planning.fact import Facts
from trimtab.planning.plan import Plan
from trimtab.planning.planner import make_plan
from trimtab.runs.folder import free_output_dir
from trimtab.workflow.materials import Materials

MATERIAL_FAMILIES = ("model", "data", "length and padding", "precision and memory")
"""What the model, tokenizer and rows depend on; a plan's other values may lie outside the domain
of a configuration, as an `eval_steps` of 0 that means never."""

RESERVED_WORDS = {"auto", "none", "model", "plain"}

ConfigLike = str | Path | Mapping[str, Any] | TrainingConfig | ResolvedConfig


@dataclass(frozen=True)
class PlannedRun:
    """A plan with the materials that it was measured on."""

    plan: Plan
    materials: Materials


def resolve_config(
    config: ConfigLike | None, options: Sequence[tuple[str, str]] = ()
) -> ResolvedConfig:
    """A configuration from a file, a mapping or an earlier result, with options on top.

    Raises ConfigError.
    """
    match config:
        case ResolvedConfig():
            return config
        case TrainingConfig():
            asked = {name: getattr(config, name) for name in config.model_fields_set}
            return resolve(values=asked, options=options)
        case None:
            return resolve(options=options)
        case str() | Path():
            return resolve(file=Path(config), options=options)
        case _:
            return resolve(values=config, options=options)


def plan(
    config: ConfigLike | None = None,
    *,
    options: Sequence[tuple[str, str]] = (),
    observer: Observer | None = None,
) -> Plan:
    """Decide every hyperparameter, with its reason; measures what it must, trains nothing.

    `config` is a YAML file's path, a mapping of hyperparameters, or a `TrainingConfig`;
    `options` are (name, text) pairs as on the command line. Raises ConfigError, DataError or
    DoesNotFit.
    """
    return plan_run(resolve_config(config, options), observer or Silent()).plan


def plan_run(resolved: ResolvedConfig, observer: Observer) -> PlannedRun:
    """The plan together with what was loaded for it."""
    materials = Materials(resolved.config, observer)
    output_dir = _output_dir(resolved)
    facts = Facts()
    while True:
        answer = make_plan(resolved, facts, output_dir=output_dir)
        if isinstance(answer, Plan):
            asked = replace(answer, config_yaml=resolved.to_yaml(), paths=_paths(resolved.config))
            return PlannedRun(asked, materials)
        for question in answer:
            facts = facts.adding(materials.answer(question))


def from_plan(plan: Plan, observer: Observer) -> PlannedRun:
    """A plan with fresh materials, for training it or for going on with its run."""
    config = TrainingConfig.model_validate(
        {
            each.name: each.value
            for each in plan.decisions
            if catalogue()[each.name].declaration.family in MATERIAL_FAMILIES
        }
        | dict(plan.paths)
    )
    return PlannedRun(plan, Materials(config, observer))


def _paths(config: TrainingConfig) -> dict[str, str]:
    """A run must be resumable from another folder than it was started in."""
    named = {
        "model": config.model,
        "dataset": config.dataset,
        "eval_dataset": str(config.eval_dataset),
        "chat_template": config.chat_template,
    }
    return {
        name: str(Path(value).expanduser().absolute())
        for name, value in named.items()
        if value not in RESERVED_WORDS and Path(value).expanduser().exists()
    }


def _output_dir(resolved: ResolvedConfig) -> str:
    config = resolved.config
    if config.output_dir != "auto":
        return config.output_dir
    return str(free_output_dir(Path("runs"), config.model, config.method, datetime.now()))


def learning_rates(plan: Plan) -> tuple[float, ...]:
    """The learning rate of every weight update of the plan."""
    return make_schedule(plan.settings()).rates
