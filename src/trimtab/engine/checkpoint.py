"""A run's state as safetensors and JSON: weights, optimizer, random states, position."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from trimtab.engine.optimizer import OptimizerSet
from trimtab.engine.random_states import random_states, set_random_states
from trimtab.engine.state import TrainingState
from trimtab.models.adapters import Model
from trimtab.models.saving import load_trainable_state, trainable_state
from trimtab.runs.atomic import staged_folder, write_json
from trimtab.runs.manifest import verify, write_manifest

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
OPTIMIZER_SCALARS = "optimizer.json"
RANDOM = "random.safetensors"
STATE = "state.json"
BEST_PREFIX = "best-"


def save_checkpoint(
    folder: Path, model: Model, optimizer: OptimizerSet, state: TrainingState
) -> None:
    """Write the checkpoint; it is complete or absent. Raises OSError where it cannot be written."""
    tensors, scalars = _flattened(optimizer)
    with staged_folder(folder) as staged:
        save_file(_contiguous(trainable_state(model)), staged / WEIGHTS)
        save_file(_contiguous(tensors), staged / OPTIMIZER)
        save_file(random_states(), staged / RANDOM)
        write_json(staged / OPTIMIZER_SCALARS, scalars)
        write_json(staged / STATE, state.to_json())
        write_manifest(staged)


def load_checkpoint(folder: Path, model: Model, optimizer: OptimizerSet) -> TrainingState:
    """Put weights, optimizer and random states back, and return the state that was saved.

    The folder must have been verified against its manifest before.
    """
    load_trainable_state(model, load_file(folder / WEIGHTS))
    scalars = json.loads((folder / OPTIMIZER_SCALARS).read_text(encoding="utf-8"))
    _restore(optimizer, load_file(folder / OPTIMIZER), scalars)
    set_random_states(load_file(folder / RANDOM))
    return TrainingState.from_json(json.loads((folder / STATE).read_text(encoding="utf-8")))


def save_best(checkpoints: Path, model: Model, step: int) -> None:
    """Keep these trainable weights as the best; the former best goes once they are complete."""
    folder = checkpoints / f"{BEST_PREFIX}{step:06d}"
    with staged_folder(folder) as staged:
        save_file(_contiguous(trainable_state(model)), staged / WEIGHTS)
        write_manifest(staged)
    for former in checkpoints.glob(f"{BEST_PREFIX}*"):
        if former != folder:
            shutil.rmtree(former)


def load_best(checkpoints: Path, model: Model, step: int) -> tuple[str, ...]:
    """Put the best weights, which `save_best` kept, into the model.

    Returns what is wrong with them where they are damaged or gone; the model is then untouched.
    """
    folder = checkpoints / f"{BEST_PREFIX}{step:06d}"
    problems = verify(folder)
    if not problems:
        load_trainable_state(model, load_file(folder / WEIGHTS))
    return problems


def remove_best(checkpoints: Path) -> None:
    """Drop the kept weights, once they are handed over."""
    for folder in checkpoints.glob(f"{BEST_PREFIX}*"):
        shutil.rmtree(folder)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _flattened(optimizer: OptimizerSet) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizers' state as tensors and scalars, by `optimizer/parameter/name`."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for number, torch_optimizer in enumerate(optimizer.optimizers):
        for index, entries in torch_optimizer.state_dict()["state"].items():
            for name, value in entries.items():
                key = f"{number}/{index}/{name}"
                if isinstance(value, Tensor):
                    tensors[key] = value
                else:
                    scalars[key] = value
        scalars[f"{number}/groups"] = [
            _group_scalars(group) for group in torch_optimizer.param_groups
        ]
    return tensors, scalars


def _group_scalars(group: Mapping[str, Any]) -> dict[str, Any]:
    """What a method keeps in its groups beside the weights, as schedule-free does its count."""
    return {
        name: value
        for name, value in group.items()
        if name != "params" and isinstance(value, int | float | bool | str | None)
    }


def _restore(
    optimizer: OptimizerSet, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]
) -> None:
    for number, torch_optimizer in enumerate(optimizer.optimizers):
        record = torch_optimizer.state_dict()
        state: dict[int, dict[str, Any]] = {}
        for source in (tensors, scalars):
            for key, value in source.items():
                parts = key.split("/")
                if parts[0] == str(number) and len(parts) == 3:
                    state.setdefault(int(parts[1]), {})[parts[2]] = value
        record["state"] = state
        for group, saved in zip(record["param_groups"], scalars[f"{number}/groups"], strict=True):
            group.update(saved)
        torch_optimizer.load_state_dict(record)
