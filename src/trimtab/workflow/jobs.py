"""From settings and materials to a job that the engine can run, and again in a safer precision."""

from __future__ import annotations

import torch

from trimtab.engine.building import batching, build_model
from trimtab.engine.loop import Job
from trimtab.engine.optimizer import make_optimizer
from trimtab.engine.schedule import make_schedule
from trimtab.planning.settings import Settings
from trimtab.runs.folder import RunFolder
from trimtab.workflow.materials import Materials
from trimtab.workflow.training_rows import TrainingRows


def make_job(settings: Settings, materials: Materials, rows: TrainingRows, run: RunFolder) -> Job:
    """Everything that the engine's loop needs."""
    model = build_model(settings, materials.source)
    return Job(
        settings=settings,
        model=model,
        optimizer=make_optimizer(model, settings),
        schedule=make_schedule(settings),
        device=torch.device(settings.device),
        train_rows=rows.train,
        eval_rows=rows.eval,
        batching=batching(settings),
        checkpoints=run.checkpoints,
    )
