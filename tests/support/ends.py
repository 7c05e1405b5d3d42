"""Whether two runs came to the same end, bit for bit, and what a run had promised before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.dying_runs import DyingRuns
from support.runs import read_jsonl
from trimtab.runs.checkpoints import checkpoint_step, newest_verified, step_checkpoints
from trimtab.workflow.resuming import PROCESS_EVENTS

OF_TIME = {"seconds", "tokens_per_s", "peak_memory_bytes", "time", "timed_seconds", "run_seconds"}
OF_PLACE = {"timed_tokens"}
"""Which updates are timed depends on where a process began."""


def differences(run: Path, whole: Path) -> list[str]:
    """What differs between a run and one that was not interrupted, but for times; no entry: none.

    Compared are the result, the last checkpoint (weights, optimizer, random states, position),
    both ledgers and what lies about.
    """
    found = [
        f"{name} differs"
        for name in sorted(_files(whole) | _files(run))
        if _content(run / name) != _content(whole / name)
    ]
    found += [f"{path.name} was left behind" for path in run.rglob(".*-*")]
    return found


def lost(run: Path) -> str | None:
    """The checkpoint that the run has told of as saved and does not have, nor a newer one."""
    if not (run / "events.jsonl").exists():
        return None
    told = -1
    for line in (run / "events.jsonl").read_bytes().split(b"\n")[:-1]:
        event = json.loads(line)
        if event["event"] == "checkpoint saved":
            told = max(told, event["step"])
        elif event["event"] == "went back":
            told = event["details"]["to_checkpoint"]
    checkpoint, _ = newest_verified(run / "checkpoints")
    kept = -1 if checkpoint is None else checkpoint_step(checkpoint)
    return f"step {told} was told of, {kept} is there" if kept < told else None


def wrong_after_kill(runs: DyingRuns, run: Path, whole: Path) -> list[str]:
    """Resume a killed run to its end; what was lost, is refused without reason or differs."""
    missing = lost(run)
    if missing is not None:
        return [missing]
    resumed = runs.resume(run)
    if not (run / "plan.json").exists():
        return [] if "no run folder" in resumed.error else [f"not refused: {resumed}"]
    if resumed.status != 0 and "the run is finished" not in resumed.error:
        return [f"not resumed: {resumed.error}"]
    return differences(run, whole)


def _files(run: Path) -> set[str]:
    names = {"metrics.jsonl", "events.jsonl", "summary.json"}
    for folder in (run / "adapter", run / "model", *step_checkpoints(run / "checkpoints")[-1:]):
        names |= {str(path.relative_to(run)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in names if Path(name).name not in {"manifest.json", "ledgers.json"}}


def _content(path: Path) -> Any:
    if not path.is_file():
        return None
    match path.name:
        case "metrics.jsonl":
            return [_timeless(record) for record in read_jsonl(path)]
        case "events.jsonl":
            return [_timeless(event) for event in _of_run(path)]
        case "state.json" | "summary.json":
            record = json.loads(path.read_text(encoding="utf-8"))
            record.pop("run", None)
            return _timeless(record)
        case _:
            return hashlib.sha256(path.read_bytes()).hexdigest()


def _of_run(path: Path) -> Iterator[dict[str, Any]]:
    return (event for event in read_jsonl(path) if event["event"] not in PROCESS_EVENTS)


def _timeless(value: Any) -> Any:
    match value:
        case dict():
            left_out = OF_TIME | OF_PLACE
            return {key: _timeless(one) for key, one in value.items() if key not in left_out}
        case list():
            return [_timeless(one) for one in value]
        case _:
            return value
