"""From a configuration and facts to a plan, or to the questions that are still open.

The planner measures nothing: it asks for what it does not know, in the order in which answers lead
to further questions, and as far as the plan's effort allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.discarding import discarded
from trimtab.planning.draft import Draft
from trimtab.planning.effort import MEASURED, Effort
from trimtab.planning.fact import Facts
from trimtab.planning.measuring import next_measurement
from trimtab.planning.plan import Plan
from trimtab.planning.questions import (
    DataQuestion,
    DeviceQuestion,
    ModelQuestion,
    NoiseScaleQuestion,
    PrecisionQuestion,
    Question,
    RateRangeQuestion,
    RunQuestion,
    TrainingRowsQuestion,
    TrialsQuestion,
    tuned_key,
)
from trimtab.planning.rules.global_batch import given_sizes
from trimtab.planning.rules.hold_out import choose_hold_out
from trimtab.planning.rules.lengths import check_layout, choose_max_length, choose_packing
from trimtab.planning.rules.schedule import check_scheduler_kwargs
from trimtab.planning.settings import Settings
from trimtab.planning.tuned import facts_under


def make_plan(
    resolved: ResolvedConfig,
    facts: Facts,
    *,
    output_dir: str,
    num_ranks: int = 1,
    num_shards: int | None = None,
    effort: Effort = MEASURED,
) -> Plan | tuple[Question, ...]:
    """The plan, or what must be measured first; ask again with the answers added to `facts`.

    `output_dir` is the run folder; `num_ranks` devices train together, of which
    `num_shards` hold one copy of what is trained (None: as `parallelism` has it). Raises
    ConfigError for settings that contradict each other, the model or the device, and DoesNotFit
    where no micro-batch fits the memory.
    """
    check_layout(resolved)
    check_scheduler_kwargs(resolved)
    given_sizes(resolved, num_ranks)
    questions = _first_questions(resolved, facts) or _rows_question(resolved, facts)
    if questions:
        return questions
    draft = _draft_on_valid_facts(resolved, facts, output_dir, num_ranks, num_shards)
    question = next_measurement(draft, effort)
    if question is not None:
        return (question,)
    return replace(draft, is_final=True, decisions={}, warnings=[], not_measured=[]).plan


def _first_questions(resolved: ResolvedConfig, facts: Facts) -> tuple[Question, ...]:
    asked: tuple[tuple[str, Question], ...] = (
        ("device.kind", DeviceQuestion(resolved.config.device)),
        ("model.num_parameters", ModelQuestion()),
        ("data.num_rows", DataQuestion()),
    )
    return tuple(question for fact_id, question in asked if fact_id not in facts)


def _rows_question(resolved: ResolvedConfig, facts: Facts) -> tuple[Question, ...]:
    """The question of the rows under the lengths and split that these facts lead to."""
    held_out = choose_hold_out(resolved, facts)
    config = resolved.config
    question = TrainingRowsQuestion(
        max_length=choose_max_length(resolved, facts),
        truncation_mode=config.truncation_mode,
        packing=choose_packing(resolved, facts),
        num_eval_rows=held_out.num_eval_rows,
        eval_dataset=held_out.dataset,
        data_seed=config.seed if config.data_seed == "auto" else config.data_seed,
    )
    is_answered = "rows.key" in facts and facts.value("rows.key") == question.key
    return () if is_answered else (question,)


def _draft_on_valid_facts(
    resolved: ResolvedConfig, facts: Facts, output_dir: str, num_ranks: int, num_shards: int | None
) -> Draft:
    """A draft that uses the measurements which were made for what it decides itself.

    Each family of facts bears the key of its question, which depends on decisions; these may in
    turn depend on facts of an earlier family, so that the families are taken one after another.
    """
    families: dict[str, Callable[[Settings], str]] = {
        "noise": lambda settings: NoiseScaleQuestion(settings, 0, 0, 0, None).key,
        "precision": lambda settings: PrecisionQuestion(settings, ()).key,
        "trials": lambda settings: TrialsQuestion(settings, ()).key,
        "rate_range": lambda settings: RateRangeQuestion(settings, ()).key,
        "run": lambda settings: RunQuestion(settings).key,
        "tuned": tuned_key,
    }
    keyed = [family for family in families if f"{family}.key" in facts]
    known = facts
    for family in keyed:
        known = known.without(family)
    draft = Draft(resolved, known, output_dir, num_ranks, num_shards)
    for family in keyed:
        found = facts_under(facts, family, families[family](draft.plan.settings()))
        known = known.adding(discarded(facts, family) if found is None else found)
        draft = Draft(resolved, known, output_dir, num_ranks, num_shards)
    return draft
