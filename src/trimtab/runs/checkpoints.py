"""Checkpoints by name: which is the newest that is whole, which may go."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path

from trimtab.errors import ConfigError
from trimtab.runs.atomic import mend, remove_folder
from trimtab.runs.manifest import verify

_NAME = re.compile(r"step-([0-9]{6,})")


@dataclass(frozen=True, slots=True)
class Refused:
    """A checkpoint that is not whole, and why."""

    path: Path
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path.name}: {'; '.join(self.problems)}"


def checkpoint_name(step: int) -> str:
    """The folder's name after this many weight updates: `step-000120`."""
    return f"step-{step:06d}"


def checkpoint_step(path: Path) -> int:
    """The number of weight updates behind a checkpoint. Raises ValueError for another name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path.name} is no checkpoint's name")
    return int(match[1])


def step_checkpoints(folder: Path) -> list[Path]:
    """The folder's checkpoints, oldest first; none where the folder is absent."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=checkpoint_step)


def newest_verified(folder: Path, *, every: int = 1) -> tuple[Path | None, tuple[Refused, ...]]:
    """The newest checkpoint whose manifest holds, and the newer ones that were refused.

    Only those of steps that `every` divides are looked at. Raises ConfigError where one cannot be
    read: it is not refused, since it may be whole.
    """
    refused: list[Refused] = []
    found = [path for path in step_checkpoints(folder) if checkpoint_step(path) % every == 0]
    for path in reversed(found):
        problems = verify(path)
        if not problems:
            return path, tuple(refused)
        refused.append(Refused(path, problems))
    return None, tuple(refused)


def retire(folder: Path, keep_last: int, *, spared_every: int = 0) -> None:
    """Remove what is older than the newest `keep_last` whole checkpoints, and writers' leftovers.

    The newest is read back first and must be as it was written. Of the others one that lacks a
    file, or has one of a wrong size, does not count as whole: the last good one stays until a good
    one follows. The newest whole one of a step that `spared_every` divides stays too, unless that
    is 0, and so does one that cannot be read. Raises OSError where the newest reads otherwise, and
    then removes nothing; ConfigError where it cannot be read; ValueError for a `keep_last` below 1.
    """
    if keep_last < 1:
        raise ValueError(f"keep_last is {keep_last}; at least one checkpoint must stay")
    checkpoints = step_checkpoints(folder)
    problems = [problem for path in checkpoints[-1:] for problem in verify(path)]
    if problems:
        told = f"what was just saved reads otherwise ({'; '.join(problems)})"
        raise OSError(errno.EIO, told, str(checkpoints[-1]))
    mend(folder)
    wholeness = {path: _is_whole(path) for path in checkpoints}
    whole = [path for path, is_whole in wholeness.items() if is_whole]
    if len(whole) > keep_last:
        oldest_kept = checkpoint_step(whole[-keep_last])
        if spared_every:
            spared = [step for step in map(checkpoint_step, whole) if step % spared_every == 0]
            oldest_kept = min([oldest_kept, *spared[-1:]])
        for path, is_whole in wholeness.items():
            if is_whole is not None and checkpoint_step(path) < oldest_kept:
                remove_folder(path)


def _is_whole(checkpoint: Path) -> bool | None:
    """By names and sizes; None where it cannot be read."""
    try:
        return not verify(checkpoint, hashes=False)
    except ConfigError:
        return None
