"""Checkpoints by name: which is the newest that is whole, which may go."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from trimtab.runs.manifest import verify

STEP_PREFIX = "step-"


@dataclass(frozen=True, slots=True)
class Refused:
    """A checkpoint that is not whole, and why."""

    path: Path
    problems: tuple[str, ...]


def checkpoint_name(step: int) -> str:
    return f"{STEP_PREFIX}{step:06d}"


def step_checkpoints(folder: Path) -> list[Path]:
    """The folder's checkpoints, oldest first."""
    found = [path for path in folder.glob(f"{STEP_PREFIX}*") if path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def newest_verified(folder: Path) -> tuple[Path | None, tuple[Refused, ...]]:
    """The newest checkpoint whose manifest holds, and the newer ones that were refused."""
    refused: list[Refused] = []
    for path in reversed(step_checkpoints(folder)):
        problems = verify(path)
        if not problems:
            return path, tuple(refused)
        refused.append(Refused(path, problems))
    return None, tuple(refused)


def retire(folder: Path, keep_last: int) -> None:
    """Remove all but the newest `keep_last` checkpoints; call it once the newest is complete."""
    for path in step_checkpoints(folder)[:-keep_last]:
        shutil.rmtree(path)
