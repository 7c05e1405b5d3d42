"""A run's state as safetensors and JSON: weights, optimizer, random states, position."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from trimtab.engine.distributed import ALONE, Ranks
from trimtab.engine.optimizer import OptimizerSet
from trimtab.engine.random_states import set_state_of_rank, states_of_all
from trimtab.engine.state import TrainingState
from trimtab.models.disk_errors import raised_as_os_error
from trimtab.models.own_memory import in_own_memory, mapped_ranges
from trimtab.models.sharding import is_sharded, like, whole
from trimtab.runs.atomic import remove_folder, staged_folder, write_json
from trimtab.runs.checkpoints import step_checkpoints
from trimtab.runs.folder import RunFolder
from trimtab.runs.ledger import Ledger
from trimtab.runs.manifest import verify, write_manifest

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
OPTIMIZER_SCALARS = "optimizer.json"
RANDOM = "random.safetensors"
STATE = "state.json"
LEDGERS = "ledgers.json"
BEST_PREFIX = "best-"
SET_BY_SETTINGS = frozenset({"lr", "weight_decay", "eps"})
"""What optimizers' groups hold of the settings, which may have changed since they were saved."""


@dataclass(frozen=True, slots=True)
class LedgerSizes:
    """How far a run's metrics and events had come."""

    metrics_bytes: int
    events_bytes: int


def save_checkpoint(
    folder: Path, optimizer: OptimizerSet, state: TrainingState, ranks: Ranks = ALONE
) -> None:
    """Write the checkpoint; it is complete or absent. Raises OSError where it cannot be written.

    `folder` is in a run's `checkpoints`; how far the run's ledgers had come is saved with it. All
    ranks take part and the first one writes: whole tensors, whatever they are shards of, so that
    any number of ranks can go on from them.
    """
    flattened, scalars = _flattened(optimizer)
    weights = gathered(optimizer.weights, ranks)
    tensors = gathered(flattened, ranks)
    states = states_of_all(ranks)
    if not ranks.is_first:
        return
    run = RunFolder(folder.parents[1])
    with staged_folder(folder) as staged:
        _save_tensors(weights, staged / WEIGHTS)
        _save_tensors(tensors, staged / OPTIMIZER)
        _save_tensors(states, staged / RANDOM)
        write_json(staged / OPTIMIZER_SCALARS, scalars)
        write_json(staged / STATE, state.to_json())
        sizes = LedgerSizes(
            metrics_bytes=Ledger(run.metrics_jsonl).synced_bytes(),
            events_bytes=Ledger(run.events_jsonl).synced_bytes(),
        )
        write_json(staged / LEDGERS, asdict(sizes))
        write_manifest(staged)


def load_checkpoint(
    folder: Path, optimizer: OptimizerSet, seed: int = 0, ranks: Ranks = ALONE
) -> TrainingState:
    """Put weights, optimizer and random states back, and return the state that was saved.

    The folder must have been verified against its manifest before. Every rank reads it. `seed`
    is the run's, for ranks that it has not had before. What the settings say of the optimizer
    (weight decay, Adam's constants) holds as `optimizer` was made.
    """
    _load_weights(folder, optimizer)
    scalars = json.loads((folder / OPTIMIZER_SCALARS).read_text(encoding="utf-8"))
    _restore(optimizer, load_file(folder / OPTIMIZER), scalars)
    state = TrainingState.from_json(json.loads((folder / STATE).read_text(encoding="utf-8")))
    set_state_of_rank(load_file(folder / RANDOM), ranks, seed, state.num_updates)
    return state


def tensor_bytes(folder: Path) -> int:
    """Of the tensors alone: nearly all that a checkpoint takes, and the same at each save."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def ledger_sizes(folder: Path) -> LedgerSizes:
    """The ledgers' sizes when the checkpoint, which was verified before, was written."""
    return LedgerSizes(**json.loads((folder / LEDGERS).read_text(encoding="utf-8")))


def save_best(checkpoints: Path, optimizer: OptimizerSet, step: int, ranks: Ranks = ALONE) -> None:
    """Keep these trainable weights as the best. Raises OSError where they cannot be written."""
    weights = gathered(optimizer.weights, ranks)
    if not ranks.is_first:
        return
    with staged_folder(_best_folder(checkpoints, step)) as staged:
        _save_tensors(weights, staged / WEIGHTS)
        write_manifest(staged)
    retire_best(checkpoints, step)


def retire_best(checkpoints: Path, best_step: int | None) -> None:
    """Remove best weights that are neither the run's nor those of a checkpoint that is there.

    A run that goes back to a checkpoint needs what was the best then.
    """
    try:
        steps = {best_step, *(_best_step(path) for path in step_checkpoints(checkpoints))}
    except OSError:
        # Which one a checkpoint needs that cannot be read is not known.
        return
    kept = {_best_folder(checkpoints, step) for step in steps if step is not None}
    for folder in checkpoints.glob(f"{BEST_PREFIX}*"):
        if folder not in kept:
            remove_folder(folder)


def _best_step(checkpoint: Path) -> int | None:
    try:
        step: int | None = json.loads((checkpoint / STATE).read_bytes())["best_step"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        # A damaged checkpoint is no place to go back to.
        return None
    return step


def _best_folder(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"{BEST_PREFIX}{step:06d}"


def load_best(checkpoints: Path, optimizer: OptimizerSet, step: int) -> tuple[str, ...]:
    """Put the best weights, which `save_best` kept, into the model.

    Returns what is wrong with them where they are damaged or gone; the model is then untouched.
    Raises ConfigError where they cannot be read.
    """
    folder = _best_folder(checkpoints, step)
    problems = verify(folder)
    if not problems:
        _load_weights(folder, optimizer)
    return problems


@torch.no_grad()
def _load_weights(folder: Path, optimizer: OptimizerSet) -> None:
    """Raises ValueError, before any weight is changed, where names, shapes or dtypes differ."""
    weights, saved = optimizer.weights, load_file(folder / WEIGHTS)
    differing = sorted(weights.keys() ^ saved.keys()) or sorted(
        name
        for name, weight in weights.items()
        if weight.shape != saved[name].shape or weight.dtype != saved[name].dtype
    )
    if differing:
        raise ValueError(f"the saved weights are of another model: {', '.join(differing[:3])} …")
    for name, weight in weights.items():
        weight.copy_(like(saved[name], weight))
    optimizer.publish()


def remove_best(checkpoints: Path) -> None:
    """Drop the kept weights, once they are handed over."""
    for folder in checkpoints.glob(f"{BEST_PREFIX}*"):
        remove_folder(folder)


def gathered(tensors: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """The tensors as they are, or whole on the first rank's CPU where they are shards."""
    if ranks.holds_replica:
        return dict(tensors)
    on_first: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        joined = whole(tensor.detach())
        if ranks.is_first:
            on_first[name] = joined.cpu()
    return on_first


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    with raised_as_os_error(path):
        save_file(_each_in_its_own_memory(tensors), path)


def _each_in_its_own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU; copied where they share memory, as a quantile map of 8-bit states is shared."""
    apart: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if place in taken else plain
        taken.add(place)
    return apart


def _flattened(optimizer: OptimizerSet) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizers' state as tensors and scalars, by `optimizer/parameter/name`.

    As it is kept, and not as `state_dict` tells it: bitsandbytes nests there what is in 8 bits.
    """
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {}
    for number, torch_optimizer in enumerate(optimizer.optimizers):
        for index, parameter in enumerate(_parameters(torch_optimizer)):
            for name, value in torch_optimizer.state.get(parameter, {}).items():
                key = f"{number}/{index}/{name}"
                if isinstance(value, Tensor):
                    tensors[key] = value
                else:
                    scalars[key] = value
        scalars[f"{number}/groups"] = [
            _group_scalars(group) for group in torch_optimizer.param_groups
        ]
    return tensors, scalars


def _parameters(torch_optimizer: Optimizer) -> list[Tensor]:
    """In the order by which a state dict numbers them."""
    return [each for group in torch_optimizer.param_groups for each in group["params"]]


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
    """Raises ValueError or KeyError, before any state is changed, where the optimizers differ."""
    states = [_entries(number, tensors, scalars) for number in range(len(optimizer.optimizers))]
    groups = [scalars[f"{number}/groups"] for number in range(len(optimizer.optimizers))]
    for torch_optimizer, state, saved in zip(optimizer.optimizers, states, groups, strict=True):
        num_weights = len(_parameters(torch_optimizer))
        if len(saved) != len(torch_optimizer.param_groups) or max(state, default=0) >= num_weights:
            raise ValueError("the saved optimizer state is of other weights")
    for torch_optimizer, state, saved in zip(optimizer.optimizers, states, groups, strict=True):
        # Loaded beside the state that it replaces, it would be held twice.
        torch_optimizer.state.clear()
        _load_state(torch_optimizer, state, saved)
    _take_state_out_of_its_file(optimizer)


def _entries(
    number: int, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]
) -> dict[int, dict[str, Any]]:
    """One optimizer's saved state, by its weights' numbers."""
    state: dict[int, dict[str, Any]] = {}
    for source in (tensors, scalars):
        for key, value in source.items():
            parts = key.split("/")
            if parts[0] == str(number) and len(parts) == 3:
                state.setdefault(int(parts[1]), {})[parts[2]] = value
    return state


def _load_state(
    torch_optimizer: Optimizer,
    state: Mapping[int, Mapping[str, Any]],
    groups: Sequence[Mapping[str, Any]],
) -> None:
    record = torch_optimizer.state_dict()
    parameters = _parameters(torch_optimizer)
    record["state"] = {
        index: {name: _as_shaped(value, parameters[index]) for name, value in entries.items()}
        for index, entries in state.items()
    }
    for group, saved in zip(record["param_groups"], groups, strict=True):
        counted = {name: value for name, value in saved.items() if name not in SET_BY_SETTINGS}
        # What was saved before the first step lacks what methods count from there on.
        for name in _group_scalars(group).keys() - counted.keys() - SET_BY_SETTINGS:
            del group[name]
        group.update(counted)
    torch_optimizer.load_state_dict(record)


def _take_state_out_of_its_file(optimizer: OptimizerSet) -> None:
    """A run would depend on the file, and removing it would free no disk, until the run's end."""
    mapped = mapped_ranges()
    for torch_optimizer in optimizer.optimizers:
        for entries in torch_optimizer.state.values():
            for name, value in entries.items():
                # A shard is a copy already.
                if isinstance(value, Tensor) and not is_sharded([value]):
                    entries[name] = in_own_memory(value, mapped)


def _as_shaped(value: Any, parameter: Tensor) -> Any:
    """State of a weight's own shape lies as the weight does."""
    is_alike = isinstance(value, Tensor) and value.shape == parameter.shape
    return like(value, parameter) if is_alike else value
