"""From a configuration and facts to a plan, or to the questions that are still open.

The planner measures nothing. Each rule is a pure function of the configuration and the facts; this
module is the order in which they are asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trimtab.hyperparameters.catalogue import catalogue
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Decision
from trimtab.planning.fact import Facts
from trimtab.planning.plan import Plan, Predictions
from trimtab.planning.positions import Layout
from trimtab.planning.predictions import Work, predict, tokens_per_step
from trimtab.planning.questions import (
    DataQuestion,
    DeviceQuestion,
    ModelQuestion,
    Question,
    TrainingRowsQuestion,
)
from trimtab.planning.rules.batch import MemoryRoom, decide_batch
from trimtab.planning.rules.cadence import decide_cadence
from trimtab.planning.rules.duration import Duration, decide_duration
from trimtab.planning.rules.global_batch import given_sizes
from trimtab.planning.rules.hold_out import choose_hold_out, decide_hold_out
from trimtab.planning.rules.learning_rate import decide_learning_rate
from trimtab.planning.rules.lengths import (
    check_layout,
    choose_max_length,
    choose_packing,
    decide_lengths,
)
from trimtab.planning.rules.lora import adapter_weights, decide_lora
from trimtab.planning.rules.memory import MemoryModel, memory_model, row_shape
from trimtab.planning.rules.optimizer import decide_optimizer
from trimtab.planning.rules.precision import decide_precision
from trimtab.planning.rules.ruling import Ruling
from trimtab.planning.rules.schedule import check_scheduler_kwargs, decide_schedule
from trimtab.planning.rules.stated import decide_stated


def make_plan(
    resolved: ResolvedConfig, facts: Facts, *, output_dir: str, num_ranks: int = 1
) -> Plan | tuple[Question, ...]:
    """The plan, or what must be measured first; ask again with the answers added to `facts`.

    `output_dir` is the run folder; `num_ranks` devices train together. Raises ConfigError for
    settings that contradict each other, the model or the device, and DoesNotFit where no
    micro-batch fits the memory.
    """
    check_layout(resolved)
    check_scheduler_kwargs(resolved)
    given_sizes(resolved, num_ranks)
    questions = _first_questions(resolved, facts) or _rows_question(resolved, facts)
    if questions:
        return questions
    return _Draft(resolved, facts, num_ranks).plan(output_dir)


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


@dataclass
class _Draft:
    """The decisions made so far; later rules read the values of earlier ones."""

    resolved: ResolvedConfig
    facts: Facts
    num_ranks: int
    decisions: dict[str, Decision] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    not_measured: list[str] = field(default_factory=list)

    def take(self, ruling: Ruling) -> None:
        self.decisions |= {decision.name: decision for decision in ruling.decisions}
        self.warnings += ruling.warnings
        self.not_measured += ruling.not_measured

    def value(self, name: str) -> Any:
        return self.decisions[name].value

    def plan(self, output_dir: str) -> Plan:
        resolved, facts = self.resolved, self.facts
        self.take(decide_stated(resolved, facts, output_dir))
        self.take(decide_hold_out(resolved, facts))
        self.take(decide_lengths(resolved, facts))
        self.take(decide_precision(resolved, facts))
        self.take(decide_optimizer(resolved, facts))
        self.take(decide_lora(resolved, facts))
        memory = self._memory()
        room = self._room()
        self.take(decide_batch(resolved, facts, memory=memory, room=room, num_ranks=self.num_ranks))
        duration = decide_duration(resolved, facts, self.value("global_batch_size"))
        self.take(duration.ruling)
        self._decide_course(duration)
        predictions = self._predictions(memory, duration)
        return Plan(
            decisions=tuple(self.decisions[name] for name in catalogue()),
            derived={
                "num_train_steps": duration.num_train_steps,
                "pad_token_id": facts.integer("model.pad_token_id"),
                "num_eval_rows": choose_hold_out(resolved, facts).num_eval_rows,
            },
            facts=tuple(facts),
            predictions=predictions,
            warnings=tuple(self.warnings),
            not_measured=(
                "peak memory (arithmetic, for a micro-batch of the longest rows)",
                "seconds an update (operations over the timed matmul rate, at an assumed "
                "utilisation)",
                *self.not_measured,
            ),
        )

    def _decide_course(self, duration: Duration) -> None:
        """Learning rate, schedule and cadence: what the run's length and batch lead to."""
        facts = self.facts
        examples_per_row = facts.number("rows.num_examples") / facts.number("rows.num_rows")
        self.take(
            decide_learning_rate(
                self.resolved,
                facts,
                optim=self.value("optim"),
                examples_per_update=self.value("global_batch_size") * examples_per_row,
            )
        )
        self.take(
            decide_schedule(
                self.resolved,
                optim=self.value("optim"),
                learning_rate=self.value("learning_rate"),
                num_steps=duration.num_train_steps,
            )
        )
        self.take(
            decide_cadence(
                self.resolved,
                facts,
                num_steps=duration.num_train_steps,
                num_updates_per_epoch=duration.num_updates_per_epoch,
                tokens_per_step=tokens_per_step(facts, duration.num_updates_per_epoch),
            )
        )

    def _num_trained_weights(self) -> int:
        if self.value("method") == "lora":
            return adapter_weights(self.resolved, self.facts)
        return self.facts.integer("model.num_parameters")

    def _memory(self) -> MemoryModel:
        return memory_model(
            self.facts,
            method=self.value("method"),
            precision=self.value("precision"),
            optim=self.value("optim"),
            num_trained_weights=self._num_trained_weights(),
            row=row_shape(
                self.facts,
                packing=self.value("packing"),
                padding=self.value("padding"),
                max_length=self.value("max_length"),
                pad_to_multiple_of=self.value("pad_to_multiple_of"),
            ),
        )

    def _room(self) -> MemoryRoom:
        """A limit that the user set binds; the device's memory binds in any case."""
        limit = self.value("memory_limit")
        is_set = self.resolved.is_set("memory_limit")
        return MemoryRoom(limit, limit if is_set else self.facts.integer("device.memory_bytes"))

    def _predictions(self, memory: MemoryModel, duration: Duration) -> Predictions:
        checkpointing = self.value("activation_checkpointing")
        work = Work(
            method=self.value("method"),
            precision=self.value("precision"),
            checkpointing=checkpointing,
            num_trained_weights=self._num_trained_weights(),
            num_steps=duration.num_train_steps,
            num_updates_per_epoch=duration.num_updates_per_epoch,
            eval_steps=self.value("eval_steps"),
            layout=Layout(
                padding="none" if self.value("packing") else self.value("padding"),
                max_length=self.value("max_length"),
                pad_to_multiple_of=self.value("pad_to_multiple_of"),
            ),
            batch_size=self.value("per_device_train_batch_size"),
            eval_batch_size=self.value("per_device_eval_batch_size"),
        )
        peak = memory.peak_bytes(self.value("per_device_train_batch_size"), checkpointing)
        return predict(self.facts, work, peak)
