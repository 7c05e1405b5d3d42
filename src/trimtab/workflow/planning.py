"""Plan, recall or measure what the planner asks for, plan again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from trimtab.data.sources import can_have_splits
from trimtab.engine.observer import Observer, Silent
from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import catalogue
from trimtab.hyperparameters.config import TrainingConfig
from trimtab.hyperparameters.layers import ResolvedConfig, resolve
from trimtab.hyperparameters.packages import check_optimizer_package
from trimtab.planning.discarding import with_answer
from trimtab.planning.effort import MEASURED, QUICK, TRAIN, Effort
from trimtab.planning.fact import Facts
from trimtab.planning.plan import Plan
from trimtab.planning.planner import make_plan
from trimtab.planning.questions import TrialsQuestion
from trimtab.probes.disk import probe_disk
from trimtab.runs.folder import free_output_dir, refuse_taken
from trimtab.workflow.light import FileQuestion, LightMaterials
from trimtab.workflow.recalling import (
    Recall,
    recall_noise_probe,
    recall_run_facts,
    recall_study_facts,
    recall_tuned,
)
from trimtab.workflow.training_rows import rows_question, separate_eval_dataset
from trimtab.workflow.trial_points import with_earlier_points

if TYPE_CHECKING:
    from trimtab.workflow.materials import Materials

MATERIAL_FAMILIES = ("model", "data", "length and padding", "precision and memory")
"""What the model, tokenizer and rows depend on; a plan's other values may lie outside the domain
of a configuration, as an `eval_steps` of 0 that means never."""

TOLD_BY_ROWS = ("dataset_format", "chat_template")

TEMPLATE_WORDS = {"auto", "model", "plain", "none"}
"""What `chat_template` may say that is no path, even where a file of that name is there."""

ConfigLike = str | Path | Mapping[str, Any] | TrainingConfig | ResolvedConfig


class Sources:
    """What answers questions about one configuration; each is made at its first use.

    `day` is what a chat template that writes the date is told: a run's stays that of its plan.
    """

    def __init__(self, config: TrainingConfig, observer: Observer, day: date) -> None:
        self._config = config
        self.day = day
        self._observer = observer

    @cached_property
    def materials(self) -> Materials:
        """What is trained on. Loading it imports torch and transformers."""
        from trimtab.workflow.materials import Materials

        return Materials(self._config, self._observer, day=self.day)

    def end_measuring(self) -> None:
        """Let go of what materials keep for measuring, where they were asked for anything."""
        if "materials" in vars(self):
            self.materials.end_measuring()

    @cached_property
    def light(self) -> LightMaterials:
        return LightMaterials(self._config, self._observer)


@dataclass(frozen=True)
class PlannedRun:
    """A plan with the sources that it was measured on."""

    plan: Plan
    sources: Sources

    @property
    def materials(self) -> Materials:
        return self.sources.materials


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
    quick: bool = False,
    refresh: bool = False,
    noise_scale: bool = False,
    num_ranks: int = 1,
) -> Plan:
    """Decide every hyperparameter, with its reason; measures what it must, trains nothing.

    `config` is a YAML file's path, a mapping of hyperparameters, or a `TrainingConfig`;
    `options` are (name, text) pairs as on the command line. What an earlier plan measured under
    the same model, data, settings, device and libraries is recalled, unless `refresh` is set.
    `quick` measures nothing and estimates from files alone what is not recalled; such a plan is
    to read, not to train. With `noise_scale` the gradient noise scale is probed too, which the
    global batch follows, unless an earlier run has measured it: that may take minutes, which are
    told first. `num_ranks` processes, each with a device of its own or a part of the CPU, will
    train together. Raises ConfigError, DataError or DoesNotFit.
    """
    if quick and noise_scale:
        raise ConfigError(
            "a quick plan measures nothing, so it cannot probe the gradient noise scale.",
            hint="Probe it without --quick once: a quick plan recalls what was found.",
        )
    resolved = resolve_config(config, options)
    observer = observer or Silent()
    _tell_taken(resolved, observer)
    effort = QUICK if quick else Effort("measured", noise_scale=noise_scale)
    planned = plan_run(
        resolved,
        observer,
        effort=effort,
        estimated=quick,
        refresh=refresh,
        num_ranks=num_ranks,
    )
    return planned.plan


def plan_run(
    resolved: ResolvedConfig,
    observer: Observer,
    *,
    effort: Effort = TRAIN,
    estimated: bool = False,
    refresh: bool = False,
    num_ranks: int = 1,
) -> PlannedRun:
    """The plan together with what was loaded for it.

    With `estimated`, what files tell of model and rows is estimated where it is not recalled, and
    a quick effort asks as an explicit plan does, and no further than is recalled.
    """
    if not estimated:
        check_optimizer_package(resolved.config.optim)
    sources = Sources(resolved.config, observer, date.today())
    recall = Recall(resolved.config, observer, measures=not estimated, refresh=refresh)
    facts = Facts().adding(recall_run_facts(resolved.config))
    facts = facts.adding(recall_tuned(resolved.config))
    facts = facts.adding(recall_study_facts(resolved.config))
    if "noise.scale_examples" not in facts and not (refresh and effort.noise_scale):
        facts = facts.adding(recall_noise_probe(resolved.config))
    elif effort.noise_scale and "noise.scale_examples" in facts:
        observer.noted("an earlier run measured the gradient noise scale: none is probed")
    if not estimated:
        facts = facts.adding(probe_disk(Path(output_dir_of(resolved))))
    try:
        made = _decided(
            resolved, facts, sources, recall, effort, estimated=estimated, num_ranks=num_ranks
        )
    finally:
        sources.end_measuring()
    recall.tell()
    whole = replace(
        made,
        config_yaml=resolved.to_yaml(),
        paths=_paths(resolved.config),
        day=sources.day,
        warnings=(*made.warnings, *_split_warnings(resolved)),
    )
    return PlannedRun(whole, sources)


def _decided(
    resolved: ResolvedConfig,
    facts: Facts,
    sources: Sources,
    recall: Recall,
    effort: Effort,
    *,
    estimated: bool,
    num_ranks: int,
) -> Plan:
    """The plan, once all that it asks for is recalled, measured or estimated."""
    output_dir = output_dir_of(resolved)
    asking = MEASURED if estimated and effort == QUICK else effort
    is_estimated = False
    while True:
        answer = make_plan(
            resolved, facts, output_dir=output_dir, num_ranks=num_ranks, effort=asking
        )
        if isinstance(answer, Plan):
            return not_to_train(answer) if is_estimated else answer
        for question in answer:
            if effort == TRAIN and isinstance(question, TrialsQuestion):
                # The process's memory is asked, in which the rows are going to be.
                sources.materials.rows(rows_question(question.settings))
            found = recall.answer(question, facts)
            if found is None and not isinstance(question, FileQuestion) and effort == QUICK:
                asking = QUICK
                break
            if found is None and estimated and isinstance(question, FileQuestion):
                found = tuple(sources.light.answer(question))
                is_estimated = True
            elif found is None:
                measured = tuple(sources.materials.answer(question))
                found = recall.remember(question, measured, facts)
            facts = with_answer(facts, with_earlier_points(found, facts))


def _split_warnings(resolved: ResolvedConfig) -> tuple[str, ...]:
    config = resolved.config
    default = TrainingConfig.model_fields["dataset_split"].default
    if config.dataset_split == default or can_have_splits(config.dataset):
        return ()
    return (f"dataset_split {config.dataset_split} is not looked for: a file has no splits.",)


def _tell_taken(resolved: ResolvedConfig, observer: Observer) -> None:
    """A plan writes nothing, so it goes on where training would be refused."""
    if resolved.config.output_dir == "auto":
        return
    try:
        refuse_taken(Path(resolved.config.output_dir))
    except ConfigError as error:
        observer.noted(f"training will refuse this output_dir: {error}")


def not_to_train(plan: Plan) -> Plan:
    """Without the digest of the rows, which training asks for."""
    return replace(plan, facts=tuple(fact for fact in plan.facts if fact.id != "rows.digest"))


def from_plan(plan: Plan, observer: Observer) -> PlannedRun:
    """A plan with fresh materials, for training it or for going on with its run.

    Raises ConfigError for a quick plan, in which something is estimated, and for a damaged one.
    """
    if "rows.digest" not in Facts().adding(plan.facts):
        raise ConfigError(
            "this is a quick plan: some of it is estimated, so it cannot be trained.",
            hint="Make it without `quick`, or train the configuration itself.",
        )
    config = _material_config(plan)
    return PlannedRun(plan, Sources(config, observer, plan.day or date.today()))


def _material_config(plan: Plan) -> TrainingConfig:
    """What is told by the rows is left open again: held-out rows may tell another."""
    try:
        told = {name for name in TOLD_BY_ROWS if plan.decision(name).origin != "user"}
        values = {
            each.name: each.value
            for each in plan.decisions
            if catalogue()[each.name].declaration.family in MATERIAL_FAMILIES
            and each.name not in told
        }
        return TrainingConfig.model_validate(values | dict(plan.paths))
    except (ValidationError, KeyError) as error:
        raise ConfigError(
            f"the plan holds what no configuration can: {error}.",
            hint="It is damaged, or another version of trimtab wrote it; plan again.",
        ) from error


def _paths(config: TrainingConfig) -> dict[str, str]:
    """A run must be resumable from another folder than it was started in."""
    named = {"model": config.model, "dataset": config.dataset}
    separate = separate_eval_dataset(config.eval_dataset)
    if separate is not None:
        named["eval_dataset"] = separate
    if config.chat_template not in TEMPLATE_WORDS:
        named["chat_template"] = config.chat_template
    return {
        name: str(Path(value).expanduser().absolute())
        for name, value in named.items()
        if Path(value).expanduser().exists()
    }


def output_dir_of(resolved: ResolvedConfig) -> str:
    config = resolved.config
    if config.output_dir != "auto":
        return config.output_dir
    return str(free_output_dir(Path("runs"), config.model, config.method, datetime.now()))
