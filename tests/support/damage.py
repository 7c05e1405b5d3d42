"""Damage to the files of a checkpoint, and whether a resume answers it as it must."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.dying_runs import DyingRuns
from support.ends import differences
from support.runs import read_jsonl
from trimtab.runs.checkpoints import step_checkpoints

KINDS = ("flip a bit", "change a byte", "truncate", "delete", "append")


@dataclass(frozen=True)
class Damage:
    """One change to one file; `place` is a byte's index or the new length."""

    kind: str
    file: str
    place: int


def damages(checkpoint: Path, choice: random.Random) -> Iterator[Damage]:
    """Endlessly: each kind on each file in turn, at random places."""
    names = sorted(path.name for path in checkpoint.iterdir())
    while True:
        for name in names:
            size = (checkpoint / name).stat().st_size
            for kind in KINDS:
                yield Damage(kind, name, choice.randrange(size))


def inflict(folder: Path, damage: Damage) -> None:
    path = folder / damage.file
    content = bytearray(path.read_bytes())
    match damage.kind:
        case "flip a bit":
            content[damage.place] ^= 1 << damage.place % 8
        case "change a byte":
            content[damage.place] = (content[damage.place] + 1 + damage.place % 255) % 256
        case "truncate":
            del content[damage.place :]
        case "append":
            content += b"\0"
    path.write_bytes(content)
    if damage.kind == "delete":
        path.unlink()


def interrupted(runs: DyingRuns, run: Path) -> None:
    """A run killed right after it had told of its third checkpoint; two are kept."""
    whole = runs.train(run)
    assert (whole.status, whole.error) == (0, "")
    tellings = [
        point for point, label in enumerate(whole.labels, 1) if label == "in write /events.jsonl"
    ]
    shutil.rmtree(run)
    # The next point lies after the whole line of the third event.
    assert runs.train(run, kill_at=tellings[2] + 1).status == -9
    assert len(step_checkpoints(run / "checkpoints")) == 2


def wrong_after_damage(
    runs: DyingRuns, run: Path, whole: Path, damage: Damage, *, to_all: bool
) -> list[str]:
    """Damage the newest checkpoint, or all, and resume; what is not as it must be.

    The newest must be refused with its file named, the one before taken, and the end be the same;
    where all are damaged the resume must fail and name them.
    """
    checkpoints = step_checkpoints(run / "checkpoints")
    damaged = checkpoints if to_all else checkpoints[-1:]
    for checkpoint in damaged:
        inflict(checkpoint, damage)
    resumed = runs.resume(run)
    if to_all:
        named = [f"{one.name}: {damage.file} " in resumed.error for one in damaged]
        return [] if resumed.status == 2 and all(named) else [f"not refused: {resumed}"]
    if resumed.status != 0:
        return [f"not resumed: {resumed.error}"]
    refused = [
        event["details"]
        for event in read_jsonl(run / "events.jsonl")
        if event["event"] == "checkpoint refused"
    ]
    (newest,) = damaged
    if [one["folder"] for one in refused] != [newest.name]:
        return [f"refused were {refused}"]
    if not any(problem.startswith(f"{damage.file} ") for problem in refused[0]["problems"]):
        return [f"{damage.file} is not named: {refused}"]
    return differences(run, whole)
