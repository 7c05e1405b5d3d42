"""From settings and materials to a job that the engine can run, and again in another recipe."""

from __future__ import annotations

from dataclasses import replace

import torch

from trimtab.engine.building import batching, build_model
from trimtab.engine.distributed import ALONE, Ranks
from trimtab.engine.loop import Job
from trimtab.engine.optimizer import make_optimizer
from trimtab.engine.schedule import make_schedule
from trimtab.models.checkpointing import set_activation_checkpointing
from trimtab.models.sharding import shard
from trimtab.planning.recipe import Recipe
from trimtab.planning.settings import Settings
from trimtab.runs.folder import RunFolder
from trimtab.workflow.materials import Materials
from trimtab.workflow.training_rows import TrainingRows


def make_job(
    settings: Settings,
    materials: Materials,
    rows: TrainingRows,
    run: RunFolder,
    ranks: Ranks = ALONE,
) -> Job:
    """Everything that the engine's loop needs on this rank."""
    model = build_model(settings, materials.source)
    if not ranks.holds_replica:
        shard(model, torch.device(settings.device))
    return Job(
        settings=settings,
        model=model,
        optimizer=make_optimizer(model, settings),
        schedule=make_schedule(settings),
        device=torch.device(settings.device),
        train_rows=rows.train,
        eval_rows=rows.eval,
        batching=batching(settings, ranks),
        checkpoints=run.checkpoints,
        ranks=ranks,
    )


def in_recipe(job: Job, recipe: Recipe) -> Job:
    """The job in another recipe of the same precision, on the model and optimizer as they are."""
    settings = recipe.applied_to(job.settings)
    set_activation_checkpointing(job.model, settings.activation_checkpointing)
    return replace(job, settings=settings, batching=batching(settings, job.ranks))
