"""Trials: runs of one configuration with a few settings moved, scored row by row, kept nowhere."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from trimtab.data.batches import eval_batches
from trimtab.data.rows import TokenRow
from trimtab.engine.building import batching, build_model, new_loss_scale
from trimtab.engine.checkpoint import load_checkpoint, save_checkpoint
from trimtab.engine.evaluation import RowLosses, row_losses
from trimtab.engine.loop import Job, run_updates
from trimtab.engine.memory import peak_memory_bytes
from trimtab.engine.observer import Silent
from trimtab.engine.optimizer import make_optimizer
from trimtab.engine.schedule import make_schedule
from trimtab.engine.state import Totals, TrainingState
from trimtab.engine.stops import RanOutOfMemory, UpdateStopped
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.models.source import ModelSource
from trimtab.planning.branch import branch_of, num_shared_updates
from trimtab.planning.recipe import Recipe
from trimtab.planning.settings import Settings
from trimtab.runs.checkpoints import checkpoint_name
from trimtab.runs.folder import RunFolder
from trimtab.runs.records import UpdateRecord


@dataclass(frozen=True, slots=True)
class UpdatesDone:
    """num_updates: weight updates that were made. num_tokens: trained on in them. Both with those
    of a branch."""

    num_updates: int = 0
    num_tokens: int = 0


OnUpdate = Callable[[UpdatesDone], None]


@dataclass(frozen=True)
class TrialOrder:
    """All that one trial needs; it can be handed to another process.

    `settings` are concrete. `overrides` are what was moved, by the catalogue's names. `eval_rows`
    are scored, at most `max_eval_length` tokens each. `branch_num_steps`: a second run of as many
    updates is made on the way, from where the two schedules part; None for none.
    `packs_in_windows`: as the run does that tokenises its rows as it goes; `train_rows` are then
    its `first_rows`.
    """

    settings: Settings
    source: ModelSource
    train_rows: Sequence[TokenRow]
    eval_rows: tuple[TokenRow, ...]
    max_eval_length: int
    overrides: Mapping[str, Any] = field(default_factory=dict)
    branch_num_steps: int | None = None
    packs_in_windows: bool = False

    @property
    def num_updates(self) -> int:
        """All weight updates that are made, a branch's own included."""
        num_updates = self.settings.num_train_steps
        if self.branch_num_steps is None:
            return num_updates
        branch = branch_of(self.settings, self.branch_num_steps)
        return num_updates + self.branch_num_steps - num_shared_updates(self.settings, branch)

    def with_learning_rate(self, learning_rate: float) -> TrialOrder:
        settings = replace(self.settings, learning_rate=learning_rate)
        return replace(
            self, settings=settings, overrides={**self.overrides, "learning_rate": learning_rate}
        )


@dataclass(frozen=True, slots=True)
class TrialRun:
    """What a trial came to. The weights that are scored are its last ones.

    num_steps: weight updates that were asked for. row_losses: nats summed over each held-out row's
    trainable tokens, `row_num_trainable_tokens` of them; rows as in `row_ids`. eval_loss: nats per
    trainable token over all rows. num_tokens: tokens trained on; num_eval_tokens: tokens scored.
    seconds: of the updates alone; total_seconds: loading and scoring too. peak_memory_bytes: of
    the process, which is the trial's own where it has one (on a CPU; on CUDA it always is).
    diverged: why there are no losses, else None; `died` where it was the process that ended, which
    another program may be the cause of. ran_out_of_memory: as `diverged` then says.
    update_losses: of the updates that were made, in nats per trainable token. branch: the second,
    shorter run, where one was ordered; its tokens, seconds and update losses are those after it
    parted from this one.
    """

    overrides: Mapping[str, Any]
    seed: int
    num_steps: int
    row_ids: tuple[int, ...]
    row_losses: tuple[float, ...]
    row_num_trainable_tokens: tuple[int, ...]
    eval_loss: float | None
    num_tokens: int
    num_eval_tokens: int
    seconds: float
    total_seconds: float
    peak_memory_bytes: int
    diverged: str | None = None
    died: bool = False
    ran_out_of_memory: bool = False
    update_losses: tuple[float, ...] = ()
    branch: TrialRun | None = None

    @property
    def is_lost(self) -> bool:
        """Whether what ended it says nothing of its values: its process died or memory ran out,
        which another program may be the cause of."""
        return self.died or self.ran_out_of_memory

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TrialRun:
        lists = ("row_ids", "row_losses", "row_num_trainable_tokens", "update_losses")
        branch = record.get("branch")
        return cls(
            **{
                **record,
                **{name: tuple(record[name]) for name in lists},
                "branch": None if branch is None else cls.from_json(branch),
            }
        )


def run_without_losses(
    overrides: Mapping[str, Any],
    *,
    seed: int,
    num_steps: int,
    reason: str,
    num_tokens: int = 0,
    total_seconds: float = 0.0,
    died: bool = False,
) -> TrialRun:
    """One that came to nothing, of `num_steps` weight updates that were asked for."""
    return TrialRun(
        overrides=overrides,
        seed=seed,
        num_steps=num_steps,
        row_ids=(),
        row_losses=(),
        row_num_trainable_tokens=(),
        eval_loss=None,
        num_tokens=num_tokens,
        num_eval_tokens=0,
        seconds=0.0,
        total_seconds=total_seconds,
        peak_memory_bytes=0,
        diverged=reason,
        died=died,
    )


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a run has no losses; `num_tokens` were scored for nothing."""

    reason: str
    num_tokens: int = 0
    ran_out_of_memory: bool = False


class _Counting(Silent):
    """Tells what was done; `losses` are the updates', until others take their place."""

    def __init__(self, on_update: OnUpdate) -> None:
        self._on_update = on_update
        self._done = UpdatesDone()
        self.losses: list[float] = []

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        self.losses.append(record.loss)
        before = self._done
        self._done = UpdatesDone(before.num_updates + 1, before.num_tokens + record.num_tokens)
        self._on_update(self._done)


def run_trial(
    order: TrialOrder,
    *,
    on_update: OnUpdate = lambda done: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> TrialRun:
    """Train as ordered in this process, annealed as the schedule says, and score the last weights.

    The same updates as a run of the same settings: seeds, order of rows, arithmetic. Where the
    guard stops it, memory runs out or a row's loss is not finite, the result says so and has no
    losses; no other precision or batch is tried. `on_update` is told what is done after each
    update.

    Raises StopRequested at the end of an update where a stop is asked for, and ConfigError and
    DoesNotFit as loading a model does.
    """
    started = time.perf_counter()
    device = torch.device(order.settings.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    job = trial_job(order)
    recipe = Recipe.of(order.settings)
    state = TrainingState(recipe, loss_scale=new_loss_scale(recipe.precision))
    # Building adapters draws numbers; a run begins with its seed after that.
    torch.manual_seed(order.settings.seed)
    trial = _Trial(order, job, state, _Counting(on_update), stop_requested)
    branch = None if order.branch_num_steps is None else trial.branched(order.branch_num_steps)
    run = trial.ended(job)
    elsewhere = 0.0 if branch is None else branch.total_seconds
    seconds = time.perf_counter() - started - elsewhere
    return replace(run, total_seconds=seconds, branch=branch)


def trial_job(order: TrialOrder) -> Job:
    """The order's run on a model of its own: nothing is saved, nor scored on the way."""
    settings = order.settings
    model = build_model(settings, order.source)
    return Job(
        settings=settings,
        model=model,
        optimizer=make_optimizer(model, settings),
        schedule=make_schedule(settings),
        device=torch.device(settings.device),
        train_rows=order.train_rows,
        eval_rows=(),
        batching=replace(batching(settings), packs_in_windows=order.packs_in_windows),
        checkpoints=None,
    )


@dataclass
class _Trial:
    """One trial under way; `state` says how far it has come."""

    order: TrialOrder
    job: Job
    state: TrainingState
    counting: _Counting
    stop_requested: Callable[[], bool]

    def branched(self, num_steps: int) -> TrialRun:
        """The run of `num_steps` updates; the order's own goes on from where the two part."""
        settings = branch_of(self.order.settings, num_steps)
        num_shared = num_shared_updates(self.order.settings, settings)
        trunk = replace(self.order.settings, num_train_steps=num_shared)
        branch = replace(self.job, settings=settings, schedule=make_schedule(settings))
        failed = self._stopped(replace(self.job, settings=trunk))
        shared = self.state.totals, self.counting.losses
        self.state.totals, self.counting.losses = Totals(), []
        run = self._ended_aside(branch) if failed is None else self._run(branch, failed, 0.0)
        self.state.totals, self.counting.losses = shared
        return run

    def _ended_aside(self, job: Job) -> TrialRun:
        """As `ended`, after which all is as before.

        What was before lies on the disk meanwhile, so that a branch needs no more memory.
        """
        with tempfile.TemporaryDirectory(prefix="trimtab-branch-") as folder:
            before = RunFolder(Path(folder)).checkpoints / checkpoint_name(self.state.num_updates)
            save_checkpoint(before, job.optimizer, self.state)
            run = self.ended(job)
            job.optimizer.for_training()
            self.state = load_checkpoint(before, job.optimizer)
        return run

    def ended(self, job: Job) -> TrialRun:
        """The job's updates that are left, and the score of its last weights."""
        started = time.perf_counter()
        failed = self._stopped(job)
        scored = self._scored(job) if failed is None else failed
        return self._run(job, scored, time.perf_counter() - started)

    def _stopped(self, job: Job) -> _Failure | None:
        """Makes the job's updates; says why they did not come to their end, where they did not."""
        try:
            run_updates(job, self.state, self.counting, self.stop_requested)
        except UpdateStopped as stopped:
            return _Failure(f"{stopped.fault} at update {stopped.step}: {stopped.reason}")
        except RanOutOfMemory as ran_out:
            return _Failure(str(ran_out), ran_out_of_memory=True)
        return None

    def _scored(self, job: Job) -> RowLosses | _Failure:
        """The rows' losses, or why there are none."""
        order, settings = self.order, job.settings
        layout = replace(job.batching, max_length=max(settings.max_length, order.max_eval_length))
        job.optimizer.for_evaluation()
        try:
            scored = row_losses(
                job.model,
                order.eval_rows,
                eval_batches(order.eval_rows, settings.per_device_eval_batch_size, layout),
                precision=settings.precision,
                device=job.device,
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return _Failure("memory ran out in the held-out pass", ran_out_of_memory=True)
        if not all(map(math.isfinite, scored.losses)):
            return _Failure("not finite: a held-out row's loss", scored.num_tokens)
        return scored

    def _run(self, job: Job, scored: RowLosses | _Failure, seconds: float) -> TrialRun:
        failed = scored if isinstance(scored, _Failure) else None
        losses = None if isinstance(scored, _Failure) else scored
        num_trainable = () if losses is None else losses.num_trainable_tokens
        return TrialRun(
            overrides=self.order.overrides,
            seed=job.settings.seed,
            num_steps=job.settings.num_train_steps,
            row_ids=() if losses is None else losses.row_ids,
            row_losses=() if losses is None else losses.losses,
            row_num_trainable_tokens=num_trainable,
            eval_loss=None if losses is None else math.fsum(losses.losses) / sum(num_trainable),
            num_tokens=self.state.totals.num_tokens,
            num_eval_tokens=scored.num_tokens,
            seconds=self.state.totals.run_seconds,
            total_seconds=seconds,
            peak_memory_bytes=peak_memory_bytes(job.device),
            diverged=None if failed is None else failed.reason,
            ran_out_of_memory=failed is not None and failed.ran_out_of_memory,
            update_losses=tuple(self.counting.losses),
        )
