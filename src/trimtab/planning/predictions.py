"""What the run is expected to take: memory, seconds and tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab.planning.fact import Facts
from trimtab.planning.micro_batches import MicroBatchSize, mean_micro_batch
from trimtab.planning.plan import Predictions
from trimtab.planning.positions import Layout
from trimtab.planning.rules.memory import Checkpointing
from trimtab.planning.timing import TimeModel


@dataclass(frozen=True, slots=True)
class Course:
    """The run's sizes, once they are decided. Batch sizes are of one device, in rows; `num_ranks`
    devices share each update and each evaluation."""

    layout: Layout
    packing: bool
    batch_size: int
    accumulation: int
    eval_batch_size: int
    checkpointing: Checkpointing
    num_steps: int
    num_updates_per_epoch: int
    eval_steps: int
    num_ranks: int = 1


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of the run's updates by micro-batch and checkpointing."""

    facts: Facts
    time: TimeModel
    layout: Layout
    packing: bool

    def update_s(self, num_rows: float, batch_size: int, checkpointing: Checkpointing) -> float:
        """Of a mean update of `num_rows` rows in micro-batches of `batch_size`."""
        size = mean_micro_batch(self.facts, self.layout, batch_size, packing=self.packing)
        return self.time.update_s(size, num_rows / batch_size, checkpointing)

    def tokens_per_s(self, num_rows: float, batch_size: int, checkpointing: Checkpointing) -> float:
        """Tokens of the rows a second; what pads them is none."""
        tokens = self.facts.number("rows.num_tokens") / self.facts.number("rows.num_rows")
        return num_rows * tokens / self.update_s(num_rows, batch_size, checkpointing)


def tokens_per_step(facts: Facts, num_updates_per_epoch: int) -> float:
    """Tokens of the rows in one update; what pads them is none."""
    return facts.number("rows.num_tokens") / num_updates_per_epoch


def predict(
    facts: Facts, course: Course, time: TimeModel | None, *, run_bytes: int, worst_bytes: int
) -> Predictions:
    """Times are None where the device's rate is not known."""
    num_tokens = tokens_per_step(facts, course.num_updates_per_epoch)
    if time is None:
        return Predictions(course.num_steps, num_tokens, run_bytes, worst_bytes)
    step_time_s = time.update_s(*mean_update(facts, course), course.checkpointing)
    evaluation_s = evaluation_time_s(facts, course, time)
    return Predictions(
        num_steps=course.num_steps,
        tokens_per_step=num_tokens,
        peak_memory_bytes=run_bytes,
        worst_case_memory_bytes=worst_bytes,
        step_time_s=step_time_s,
        total_time_s=course.num_steps * step_time_s + num_evaluations(course) * evaluation_s,
    )


def num_evaluations(course: Course) -> int:
    """One before the run, one every `eval_steps`, one at the end; none where that is 0."""
    return 1 + math.ceil(course.num_steps / course.eval_steps) if course.eval_steps else 0


def evaluation_time_s(facts: Facts, course: Course, time: TimeModel) -> float:
    """Seconds of one pass over the held-out rows."""
    examples_per_row = facts.number("rows.num_examples") / facts.number("rows.num_rows")
    num_examples = facts.number("rows.eval_num_tokens") / facts.number("rows.length_mean")
    rows_per_rank = num_examples / examples_per_row / course.num_ranks
    num_micro_batches = rows_per_rank / course.eval_batch_size
    size = mean_micro_batch(facts, course.layout, course.eval_batch_size, packing=course.packing)
    return time.forward_s(size, num_micro_batches)


def mean_update(facts: Facts, course: Course) -> tuple[MicroBatchSize, float]:
    """The mean micro-batch of the run, and how many of them an update has on each device."""
    if "run.num_tokens" in facts:
        num_micro_batches = facts.number("run.num_micro_batches") / course.num_steps
        whole = MicroBatchSize(
            facts.number("run.num_tokens"),
            facts.number("run.num_scored"),
            facts.number("run.sum_length_squared"),
        )
        mean = whole.times(1 / num_micro_batches)
    else:
        num_micro_batches = _micro_batches_per_epoch(facts, course) / course.num_updates_per_epoch
        mean = mean_micro_batch(facts, course.layout, course.batch_size, packing=course.packing)
        rows_per_rank = facts.number("rows.num_rows") / course.num_ranks
        rows_per_update = rows_per_rank / course.num_updates_per_epoch
        mean = mean.times(rows_per_update / (num_micro_batches * course.batch_size))
    return mean, num_micro_batches


def _micro_batches_per_epoch(facts: Facts, course: Course) -> int:
    """Of the first rank. The last update of an epoch has what is left of it."""
    num_rows = facts.integer("rows.num_rows")
    whole, rest = divmod(num_rows, course.batch_size * course.accumulation * course.num_ranks)
    last = math.ceil(math.ceil(rest / course.batch_size) / course.num_ranks)
    return whole * course.accumulation + last
