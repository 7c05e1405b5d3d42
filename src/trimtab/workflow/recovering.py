"""Where the engine stopped with a reason, ask the planner again and go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from trimtab.engine.building import new_loss_scale
from trimtab.engine.checkpoint import ledger_sizes, load_checkpoint
from trimtab.engine.loop import run_updates, save
from trimtab.engine.random_states import seed_of_rank
from trimtab.engine.state import TrainingState
from trimtab.engine.stops import RanOutOfMemory, UpdateStopped
from trimtab.models.checkpointing import can_recompute
from trimtab.planning.decision import Decision
from trimtab.planning.fact import Facts
from trimtab.planning.recipe import Recipe
from trimtab.planning.rules.fallback import safer_precision
from trimtab.planning.rules.smaller_recipe import smaller_eval_batch, smaller_recipe
from trimtab.runs.atomic import remove_folder
from trimtab.runs.checkpoints import (
    Refused,
    checkpoint_name,
    checkpoint_step,
    newest_verified,
    step_checkpoints,
)
from trimtab.runs.folder import RunFolder
from trimtab.runs.ledger import Ledger
from trimtab.runs.records import EventRecord
from trimtab.workflow.jobs import in_recipe, make_job
from trimtab.workflow.session import Progress, Session

MAX_REWINDS = 3
WENT_BACK = "went back"
"""Of an event's details `to_checkpoint` is the step; -1 is the run's start."""


def train_through(session: Session, progress: Progress, stop_requested: Callable[[], bool]) -> None:
    """All updates; where one failed, in a recipe that the planner has left, or past its rows.

    Raises UpdateStopped and RanOutOfMemory where there is no such way on, StopRequested when asked
    to stop and saved.
    """
    while True:
        try:
            run_updates(progress.job, progress.state, session.observer, stop_requested)
        except UpdateStopped as stopped:
            if stopped.fault == "loss spike":
                _answer_spike(session, progress, stopped)
            else:
                _go_on_in_safer_precision(session, progress, stopped)
        except RanOutOfMemory as ran_out:
            _go_on_in_less_memory(session, progress, ran_out)
        else:
            return


def _go_on_in_safer_precision(session: Session, progress: Progress, stopped: UpdateStopped) -> None:
    """The same run, one number format safer, with data order and counts kept.

    From the current weights where no bad update was applied; a collapsed loss may be in the
    weights already, so the run then goes back. Raises `stopped` again where no safer format is
    left or the fault is no format's.
    """
    recipe = progress.state.recipe
    facts = Facts().adding(session.plan.facts)
    is_of_format = stopped.fault != "diverged"
    decision = safer_precision(recipe.precision, stopped.reason, facts) if is_of_format else None
    if decision is None:
        raise stopped
    _tell_changed(session, decision, recipe.precision, stopped.step, stopped.row_ids)
    safer = replace(recipe, precision=decision.value)
    if stopped.fault != "collapsed":
        _adopt(progress, safer)
        save(progress.job, progress.state, session.observer)
    _go_back(session, progress, safer, with_new_weights=True)
    if stopped.fault == "collapsed":
        save(progress.job, progress.state, session.observer)


def _go_on_in_less_memory(session: Session, progress: Progress, ran_out: RanOutOfMemory) -> None:
    """The same update in smaller pieces; the model is not loaded again.

    Where weights may have moved in part, from the newest checkpoint. Raises `ran_out` again where
    no smaller recipe is left.
    """
    recipe = progress.state.recipe
    if ran_out.phase == "held-out pass":
        told = f"the held-out pass ran out of memory with {recipe.per_device_eval_batch_size:,}"
        changed = smaller_eval_batch(recipe, told)
    else:
        size = recipe.per_device_train_batch_size
        told = f"the {ran_out.phase} ran out of memory with micro-batches of {size:,}"
        changed = smaller_recipe(recipe, told, can_recompute=can_recompute(progress.job.model))
    if changed is None:
        raise ran_out
    decision, smaller = changed
    _tell_changed(session, decision, getattr(recipe, decision.name), ran_out.step, ran_out.row_ids)
    if ran_out.phase == "optimizer step":
        _go_back(session, progress, smaller)
    _adopt(progress, smaller)
    progress.job = in_recipe(progress.job, smaller)
    # At once, so that a kill right after this resumes in the smaller recipe.
    save(progress.job, progress.state, session.observer)


def _answer_spike(session: Session, progress: Progress, stopped: UpdateStopped) -> None:
    """What `on_loss_spike` asks for; raises `stopped` again for `stop`.

    skip: the update is not made, and the data goes on behind its rows. The schedule counts applied
    updates, so the run makes as many as planned and its last ones take rows of a further epoch.
    rewind: weights, optimizer, random states and counts of the newest checkpoint that `save_steps`
    asked for (what a stop or a change of recipe saved does not count, so that an interruption does
    not move the target), or of the start. The data goes on behind the spike's rows all the same:
    neither they nor those before them since that checkpoint are met again in this epoch.
    """
    state, policy = progress.state, session.settings.on_loss_spike
    if policy == "stop" or stopped.next_position is None or stopped.epoch is None:
        raise stopped
    if policy == "rewind" and state.num_rewinds == MAX_REWINDS:
        raise UpdateStopped(
            "diverged",
            f"{stopped.reason}; the run went back {MAX_REWINDS} times and its loss rose again, "
            "which no batch explains",
            stopped.step,
            stopped.row_ids,
        )
    num_passed_over = 1
    if policy == "rewind":
        _go_back(session, progress, state.recipe, every=session.settings.save_steps)
        progress.state.num_rewinds += 1
        # A younger guard would not know which losses are usual, and let the next spike through.
        progress.state.guard = replace(state.guard, num_spikes_in_a_row=0)
        num_passed_over = stopped.step - progress.state.num_updates
    progress.state.position = stopped.next_position
    progress.state.epoch = stopped.epoch
    progress.state.num_skipped_updates += num_passed_over
    details = {
        "answer": policy,
        "because": stopped.reason,
        "back_to_update": progress.state.num_updates,
        "num_updates_passed_over": num_passed_over,
        "row_ids": list(stopped.row_ids),
    }
    session.observer.happened(EventRecord("loss spike", stopped.step, details))
    if policy == "rewind":
        save(progress.job, progress.state, session.observer)


def _go_back(
    session: Session,
    progress: Progress,
    recipe: Recipe,
    *,
    with_new_weights: bool = False,
    every: int = 1,
) -> None:
    """To the newest checkpoint that verifies, or the start where there is none; newer ones go.

    `every` leaves out checkpoints of steps that it does not divide; 0 leaves out all. The held-out
    loss before training, the best weights and the answers to spikes are kept: they are no part of
    what is undone. `with_new_weights` loads the model in the recipe's format.
    """
    before, ranks = progress.state, session.ranks
    step = ranks.of_first(_cleared(session, every) if ranks.is_first else 0)
    checkpoint = None if step < 0 else session.run.checkpoints / checkpoint_name(step)
    if with_new_weights or checkpoint is None:
        progress.release_job()
        settings = recipe.applied_to(session.settings)
        progress.job = make_job(settings, session.materials, session.rows, session.run, ranks)
    if checkpoint is None:
        torch.manual_seed(seed_of_rank(session.settings.seed, ranks.rank))
        progress.state = TrainingState(recipe, loss_scale=new_loss_scale(recipe.precision))
    else:
        job, seed = progress.job, session.settings.seed
        progress.state = load_checkpoint(checkpoint, job.optimizer, seed=seed, ranks=ranks)
    _adopt(progress, recipe)
    state = progress.state
    state.base_eval_loss = before.base_eval_loss
    state.best_step, state.best_eval_loss = before.best_step, before.best_eval_loss
    state.num_rewinds = before.num_rewinds
    state.num_skipped_updates = before.num_skipped_updates
    if ranks.is_first:
        forget_metrics(session.run, checkpoint)


def _cleared(session: Session, every: int) -> int:
    """The step to go back to, -1 for the run's start, once no newer checkpoint is in the way."""
    folder = session.run.checkpoints
    checkpoint, refused = newest_verified(folder, every=every) if every else (None, ())
    remove_refused(session, refused)
    step = -1 if checkpoint is None else checkpoint_step(checkpoint)
    # Told first: what is removed now will not be missed by a resume.
    session.observer.happened(EventRecord(WENT_BACK, max(step, 0), {"to_checkpoint": step}))
    for path in step_checkpoints(folder):
        if checkpoint_step(path) > step:
            remove_folder(path)
    return step


def _adopt(progress: Progress, recipe: Recipe) -> None:
    state = progress.state
    if state.recipe.precision != recipe.precision:
        state.loss_scale = new_loss_scale(recipe.precision)
    state.recipe = recipe


def _tell_changed(
    session: Session, decision: Decision, before: object, step: int, row_ids: tuple[int, ...]
) -> None:
    details = {
        "hyperparameter": decision.name,
        "from": before,
        "to": decision.value,
        "because": decision.because,
        "limits": decision.limits,
        "row_ids": list(row_ids),
    }
    session.observer.happened(EventRecord("recipe changed", step, details))


def remove_refused(session: Session, refused: Sequence[Refused]) -> None:
    """Tell and record which checkpoints do not verify, and why; they are in the way of new ones."""
    for one in refused:
        session.observer.noted(f"Refused {one}.")
        details = {"folder": one.path.name, "problems": list(one.problems)}
        step = checkpoint_step(one.path)
        session.observer.happened(EventRecord("checkpoint refused", step, details))
        if one.path.exists():
            remove_folder(one.path)


def forget_metrics(run: RunFolder, checkpoint: Path | None) -> None:
    """Take out of the metrics what came after a checkpoint, or after the base's evaluation.

    Events stay: they happened, and what follows is not the same again.
    """
    if checkpoint is None:
        Ledger(run.metrics_jsonl).cut(0, lambda record: record["step"] == 0)
    else:
        cut_metrics(run, checkpoint)


def cut_metrics(run: RunFolder, checkpoint: Path) -> None:
    """Cut the metrics back to the checkpoint, also where lines of it were removed by hand.

    An evaluation of its own step may have come after it, and is then done again.
    """
    step = checkpoint_step(checkpoint)
    Ledger(run.metrics_jsonl).cut(
        ledger_sizes(checkpoint).metrics_bytes,
        keep=lambda record: record["step"] < step or (record["step"] == step and "loss" in record),
        keep_before=lambda record: record["step"] <= step,
    )
