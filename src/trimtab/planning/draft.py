"""The order in which the rules are asked: a configuration and facts in, a plan out."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from trimtab.hyperparameters.catalogue import catalogue
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Decision
from trimtab.planning.device_sheets import is_elsewhere
from trimtab.planning.fact import Facts
from trimtab.planning.memory_fit import fit_memory
from trimtab.planning.micro_batches import examples_per_update
from trimtab.planning.peak_memory import PeakMemory
from trimtab.planning.plan import Plan, Predictions
from trimtab.planning.positions import Layout
from trimtab.planning.predictions import (
    Course,
    Speed,
    mean_update,
    predict,
    tokens_per_step,
)
from trimtab.planning.rules.batch import (
    decide_batch,
    micro_batch_candidates,
    rows_per_update,
)
from trimtab.planning.rules.cadence import decide_cadence
from trimtab.planning.rules.choice import LADDER, Choice, MemoryRoom
from trimtab.planning.rules.duration import Duration, decide_duration
from trimtab.planning.rules.global_batch import (
    GivenSizes,
    Target,
    given_sizes,
    global_batch_target,
)
from trimtab.planning.rules.hold_out import choose_hold_out, decide_hold_out
from trimtab.planning.rules.learning_rate import decide_learning_rate
from trimtab.planning.rules.lengths import decide_lengths
from trimtab.planning.rules.lora import adapter_weights, decide_lora
from trimtab.planning.rules.memory import (
    OPTIMIZER_BYTES_PER_WEIGHT,
    Checkpointing,
    memory_arithmetic,
)
from trimtab.planning.rules.optimizer import decide_optimizer
from trimtab.planning.rules.parallelism import Division, choose_parallelism, decide_parallelism
from trimtab.planning.rules.precision import decide_precision
from trimtab.planning.rules.ruling import Ruling
from trimtab.planning.rules.schedule import decide_schedule
from trimtab.planning.rules.stated import decide_stated, ranks_on_one_memory
from trimtab.planning.rules.studied import with_study
from trimtab.planning.step_time import PredictedTime, Split, StepTerms, datasheet_rates
from trimtab.planning.timing import TimeModel, Work, update_time
from trimtab.planning.trials import measured_points


@dataclass
class Draft:
    """The decisions made so far; later rules read the values of earlier ones.

    num_ranks devices train together, of which `num_shards` hold one copy of what is trained; None
    leaves that to the plan.
    is_final: nothing more will be measured, so that what does not fit is an error.
    """

    resolved: ResolvedConfig
    facts: Facts
    output_dir: str
    num_ranks: int
    num_shards: int | None = None
    is_final: bool = False
    decisions: dict[str, Decision] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    not_measured: list[str] = field(default_factory=list)

    def value(self, name: str) -> Any:
        return self.decisions[name].value

    @cached_property
    def plan(self) -> Plan:
        """Raises ConfigError, and DoesNotFit where the draft is final."""
        resolved, facts = self.resolved, self.facts
        self._take(decide_stated(resolved, facts, self.output_dir, self.num_ranks))
        self._take(decide_hold_out(resolved, facts))
        self._take(decide_lengths(resolved, facts))
        self._take(decide_precision(resolved, facts))
        self._take(decide_optimizer(resolved, facts))
        self._take(decide_lora(resolved, facts))
        self._take(self._decide_parallelism())
        self._take(
            decide_batch(
                resolved,
                facts,
                choice=self.choice,
                is_draft=not self.is_final,
            )
        )
        duration = decide_duration(resolved, facts, self.value("global_batch_size"))
        self._take(duration.ruling)
        self._decide_course(duration)
        return Plan(
            decisions=tuple(with_study(self.decisions[name], facts) for name in catalogue()),
            derived={
                "num_train_steps": duration.num_train_steps,
                "pad_token_id": facts.integer("model.pad_token_id"),
                "num_eval_rows": choose_hold_out(resolved, facts).num_eval_rows,
                "num_ranks": self.num_ranks,
            },
            facts=tuple(facts),
            predictions=self._predictions(duration),
            warnings=tuple(self.warnings),
            not_measured=tuple(self.not_measured),
        )

    @cached_property
    def choice(self) -> Choice:
        """What the batch's sizes are chosen from; needs the decisions before them."""
        points = measured_points(self.facts) if self._division == "replicate" else ()
        return Choice(
            given=self._given,
            target=self._target,
            candidates=self._candidates,
            ladder=self._ladder,
            memory=self._memory,
            room=self._room(),
            speed=self._speed,
            died=tuple(point.trial for point in points if point.peak_bytes is None),
        )

    @property
    def _candidates(self) -> tuple[int, ...]:
        return micro_batch_candidates(self._given, self._target.size)

    @property
    def _ladder(self) -> tuple[Checkpointing, ...]:
        asked = self.resolved.config.activation_checkpointing
        return LADDER if asked == "auto" else (asked,)

    @cached_property
    def _division(self) -> Division:
        if self.num_shards is not None:
            return "replicate" if self.num_shards == 1 else "shard"
        least = self._least_bytes("replicate")
        return choose_parallelism(self.resolved, self.num_ranks, least, self._room())

    def _shards_of(self, division: Division) -> int:
        if division == "replicate":
            return 1
        return self.num_ranks if self.num_shards in {None, 1} else self.num_shards

    def _least_bytes(self, division: Division) -> int:
        """What the smallest micro-batch needs with as much recomputed as may be."""
        return self._memory_of(division).worst_case_bytes(self._candidates[-1], self._ladder[-1])

    def _decide_parallelism(self) -> Ruling:
        return decide_parallelism(
            self.resolved,
            self._division,
            num_ranks=self.num_ranks,
            optim=self.value("optim"),
            replica_bytes=self._least_bytes("replicate"),
            shard_bytes=self._least_bytes("shard"),
            room=self._room(),
        )

    def _take(self, ruling: Ruling) -> None:
        self.decisions |= {decision.name: decision for decision in ruling.decisions}
        self.warnings += ruling.warnings
        self.not_measured += ruling.not_measured

    def _decide_course(self, duration: Duration) -> None:
        """Learning rate, schedule and cadence: what the run's length and batch lead to."""
        facts = self.facts
        self._take(
            decide_learning_rate(
                self.resolved,
                facts,
                optim=self.value("optim"),
                examples_per_update=examples_per_update(facts, self.value("global_batch_size")),
            )
        )
        self._take(
            decide_schedule(
                self.resolved,
                optim=self.value("optim"),
                learning_rate=self.value("learning_rate"),
                num_steps=duration.num_train_steps,
            )
        )
        speed = self._speed
        rows_per_rank = facts.number("rows.num_rows") / self.num_ranks
        rows = rows_per_rank / duration.num_updates_per_epoch
        checkpointing = self.value("activation_checkpointing")
        micro = self.value("per_device_train_batch_size")
        self._take(
            decide_cadence(
                self.resolved,
                facts,
                num_steps=duration.num_train_steps,
                num_updates_per_epoch=duration.num_updates_per_epoch,
                tokens_per_step=tokens_per_step(facts, duration.num_updates_per_epoch),
                checkpoint_bytes=self._num_trained
                * (4 + OPTIMIZER_BYTES_PER_WEIGHT[self.value("optim")]),
                step_time_s=None if speed is None else speed.update_s(rows, micro, checkpointing),
            )
        )

    @cached_property
    def _given(self) -> GivenSizes:
        return given_sizes(self.resolved, self.num_ranks)

    @cached_property
    def _target(self) -> Target:
        return global_batch_target(self.resolved, self.facts)

    @cached_property
    def _num_trained(self) -> int:
        if self.value("method") == "lora":
            return adapter_weights(self.resolved, self.facts)
        return self.facts.integer("model.num_parameters")

    @cached_property
    def _layout(self) -> Layout:
        return Layout(
            padding="none" if self.value("packing") else self.value("padding"),
            max_length=self.value("max_length"),
            pad_to_multiple_of=self.value("pad_to_multiple_of"),
        )

    @property
    def _memory(self) -> PeakMemory:
        return self._memory_of(self._division)

    def _memory_of(self, division: Division) -> PeakMemory:
        """Trials were made by a replica; of shards there is arithmetic alone."""
        arithmetic = memory_arithmetic(
            self.facts,
            method=self.value("method"),
            precision=self.value("precision"),
            optim=self.value("optim"),
            num_trained=self._num_trained,
            num_shards=self._shards_of(division),
        )
        given = self._given
        return PeakMemory(
            facts=self.facts,
            layout=self._layout,
            packing=self.value("packing"),
            rows_per_update=rows_per_update(given, self._target.size),
            accumulation=None if given.total is not None else given.accumulation,
            arithmetic=arithmetic,
            measured=fit_memory(self.facts, arithmetic) if division == "replicate" else None,
        )

    @cached_property
    def _speed(self) -> Speed | None:
        """None where the device's rate is not known, and no update was timed."""
        time = self._time
        if time is None:
            return None
        return Speed(self.facts, time, self._layout, self.value("packing"))

    @property
    def step_terms(self) -> StepTerms:
        """What an update's seconds are made of, on a device that is elsewhere."""
        plan, time = self.plan, self._time
        assert isinstance(time, PredictedTime)
        duration = decide_duration(self.resolved, self.facts, self.value("global_batch_size"))
        mean, num_micro_batches = mean_update(self.facts, self._course(duration))
        settings = plan.settings()
        return time.terms(mean, num_micro_batches, settings.activation_checkpointing)

    @property
    def _time(self) -> TimeModel | None:
        facts = self.facts
        work = Work(facts, self.value("method"), self.value("precision"), self._num_trained)
        if not is_elsewhere(facts):
            return update_time(facts, work)
        split = Split(self.num_ranks, self._shards_of(self._division))
        rates = datasheet_rates(facts, work)
        return PredictedTime(work, self._memory.arithmetic, rates, split)

    def _room(self) -> MemoryRoom:
        """A limit that the user set binds; the device's memory binds in any case."""
        limit = self.value("memory_limit")
        num_sharing = ranks_on_one_memory(self.facts, self.num_ranks)
        there = self.facts.integer("device.memory_bytes") // num_sharing
        return MemoryRoom(
            limit_bytes=limit,
            ceiling_bytes=limit if self.resolved.is_given("memory_limit") else there,
            free_bytes=self.facts.integer("device.memory_available_bytes") // num_sharing,
            device_bytes=there,
            num_sharing=num_sharing,
        )

    def _predictions(self, duration: Duration) -> Predictions:
        micro = self.value("per_device_train_batch_size")
        checkpointing = self.value("activation_checkpointing")
        return predict(
            self.facts,
            self._course(duration),
            None if self._speed is None else self._speed.time,
            run_bytes=self._memory.run_bytes(micro, checkpointing),
            worst_bytes=self._memory.worst_case_bytes(micro, checkpointing),
        )

    def _course(self, duration: Duration) -> Course:
        return Course(
            layout=self._layout,
            packing=self.value("packing"),
            batch_size=self.value("per_device_train_batch_size"),
            accumulation=self.value("gradient_accumulation_steps"),
            eval_batch_size=self.value("per_device_eval_batch_size"),
            checkpointing=self.value("activation_checkpointing"),
            num_steps=duration.num_train_steps,
            num_updates_per_epoch=duration.num_updates_per_epoch,
            eval_steps=self.value("eval_steps"),
            num_ranks=self.num_ranks,
        )
