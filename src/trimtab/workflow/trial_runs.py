"""Trials: runs of one configuration with a few settings moved, scored row by row, kept nowhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from trimtab.data.batches import eval_batches
from trimtab.data.rows import TokenRow
from trimtab.engine.building import batching, build_model, new_loss_scale
from trimtab.engine.evaluation import RowLosses, row_losses
from trimtab.engine.loop import Job, run_updates
from trimtab.engine.memory import peak_memory_bytes
from trimtab.engine.observer import Observer, Silent
from trimtab.engine.optimizer import make_optimizer
from trimtab.engine.schedule import make_schedule
from trimtab.engine.state import TrainingState
from trimtab.engine.stops import RanOutOfMemory, UpdateStopped
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.models.source import ModelSource
from trimtab.planning.recipe import Recipe
from trimtab.planning.settings import Settings
from trimtab.runs.records import UpdateRecord

NumUpdatesDone = Callable[[int], None]


@dataclass(frozen=True)
class TrialOrder:
    """All that one trial needs; it can be handed to another process.

    `settings` are concrete. `overrides` are what was moved, by the catalogue's names. `eval_rows`
    are scored, at most `max_eval_length` tokens each.
    """

    settings: Settings
    source: ModelSource
    train_rows: tuple[TokenRow, ...]
    eval_rows: tuple[TokenRow, ...]
    max_eval_length: int
    overrides: Mapping[str, Any] = field(default_factory=dict)

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
    diverged: why there are no losses, else None. update_losses: of the updates that were made, in
    nats per trainable token.
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
    update_losses: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TrialRun:
        lists = ("row_ids", "row_losses", "row_num_trainable_tokens", "update_losses")
        return cls(**{**record, **{name: tuple(record[name]) for name in lists}})


class _Counting(Silent):
    def __init__(self, on_update: NumUpdatesDone) -> None:
        self._on_update = on_update
        self.losses: list[float] = []

    def updated(self, record: UpdateRecord, num_steps: int) -> None:
        self.losses.append(record.loss)
        self._on_update(record.step)


def run_trial(
    order: TrialOrder,
    *,
    on_update: NumUpdatesDone = lambda num_updates: None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> TrialRun:
    """Train as ordered in this process, annealed as the schedule says, and score the last weights.

    The same updates as a run of the same settings: seeds, order of rows, arithmetic. Where the
    guard stops it, memory runs out or a row's loss is not finite, the result says so and has no
    losses; no other precision or batch is tried. `on_update` is told the updates that are done.

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
    counting = _Counting(on_update)
    scored = _train_and_score(order, job, state, counting, stop_requested)
    made = _trial_run(order, state, scored, started, peak_memory_bytes(device))
    return replace(made, update_losses=tuple(counting.losses))


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
        batching=batching(settings),
        checkpoints=None,
    )


def _train_and_score(
    order: TrialOrder,
    job: Job,
    state: TrainingState,
    observer: Observer,
    stop_requested: Callable[[], bool],
) -> RowLosses | str:
    """The rows' losses, or why there are none."""
    try:
        run_updates(job, state, observer, stop_requested)
        scored = _scored(order, job)
    except UpdateStopped as stopped:
        return f"{stopped.fault} at update {stopped.step}: {stopped.reason}"
    except RanOutOfMemory as ran_out:
        return str(ran_out)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return "memory ran out in the held-out pass"
    if not all(map(math.isfinite, scored.losses)):
        return "not finite: a held-out row's loss"
    return scored


def _scored(order: TrialOrder, job: Job) -> RowLosses:
    settings = order.settings
    layout = replace(job.batching, max_length=max(settings.max_length, order.max_eval_length))
    job.optimizer.for_evaluation()
    return row_losses(
        job.model,
        order.eval_rows,
        eval_batches(order.eval_rows, settings.per_device_eval_batch_size, layout),
        precision=settings.precision,
        device=job.device,
    )


def _trial_run(
    order: TrialOrder,
    state: TrainingState,
    scored: RowLosses | str,
    started: float,
    peak: int,
) -> TrialRun:
    losses = None if isinstance(scored, str) else scored
    num_trainable = () if losses is None else losses.num_trainable_tokens
    return TrialRun(
        overrides=order.overrides,
        seed=order.settings.seed,
        num_steps=order.settings.num_train_steps,
        row_ids=() if losses is None else losses.row_ids,
        row_losses=() if losses is None else losses.losses,
        row_num_trainable_tokens=num_trainable,
        eval_loss=None if losses is None else math.fsum(losses.losses) / sum(num_trainable),
        num_tokens=state.totals.num_tokens,
        num_eval_tokens=0 if losses is None else losses.num_tokens,
        seconds=state.totals.run_seconds,
        total_seconds=time.perf_counter() - started,
        peak_memory_bytes=peak,
        diverged=scored if isinstance(scored, str) else None,
    )
