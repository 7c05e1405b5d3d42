"""What do kills and damage cost? Nothing, or this says what.

    python benchmarks/faults.py points --out FILE.jsonl
    python benchmarks/faults.py kills --out FILE.jsonl [--number 200]
    python benchmarks/faults.py flips --out FILE.jsonl [--number 200]
    python benchmarks/faults.py summary FILE.jsonl

`points`: a run is killed at each change that it makes on the disk, and resumed. `kills`: runs of
several kinds are killed at random moments, resumed, and killed again by chance. `flips`: bits and
bytes of checkpoint files are changed, files cut, lengthened and deleted. Each end is compared with
that of a run left alone, bit for bit. Models are tiny and random; processes are forked from one
that has loaded everything, and killed by SIGKILL. Outcomes are appended one by one; what is there
already is not done again. `--seconds` stops after so long, to go on another time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.damage import damages, interrupted, wrong_after_damage
from support.dying_runs import dying_runs
from support.ends import wrong_after_kill
from support.killing import VARIETY, killed_until_done, timed_whole
from support.runs import tiny_config
from support.tiny import save_tiny_model

from trimtab.runs.checkpoints import step_checkpoints

TO_ALL_EVERY = 8
Outcome = dict[str, Any]


def points(folder: Path, done: list[Outcome]) -> Iterator[Outcome]:
    """Every kill point of a run that keeps a best, replaces it, retires and hands over."""
    config = _config(folder, max_steps=2, save_steps=1, save_total_limit=1, eval_steps=1)
    run, whole = folder / "run", folder / "whole"
    with dying_runs() as runs:
        runs.plan(config)
        labels = runs.train(run).labels
        run.rename(whole)
        for point, label in enumerate(labels[len(done) :], len(done) + 1):
            assert runs.train(run, kill_at=point).status == -9
            wrong = wrong_after_kill(runs, run, whole)
            yield {"what": "point", "name": label, "num_kills": 1, "wrong": wrong}
            shutil.rmtree(run, ignore_errors=True)


def kills(folder: Path, done: list[Outcome]) -> Iterator[Outcome]:
    """Each kind of run in turn, ten stories at a time; endless."""
    for turn in itertools.count(len(done) // 10):
        name = list(VARIETY)[turn % len(VARIETY)]
        config = _config(folder, **{"max_steps": 30, **VARIETY[name]})
        with dying_runs() as runs:
            runs.plan(config)
            whole, whole_s = timed_whole(runs, folder)
            for number in range(10):
                choice = random.Random(f"{turn} {number}")
                story = killed_until_done(
                    runs, folder / "run", whole, whole_s=whole_s, choice=choice
                )
                yield {
                    "what": "kills",
                    "name": name,
                    "num_kills": story.num_kills,
                    "wrong": story.wrong,
                }
            shutil.rmtree(whole)


def flips(folder: Path, done: list[Outcome]) -> Iterator[Outcome]:
    """Damage to each file of a checkpoint in turn; endless."""
    config = _config(folder, max_steps=5, save_steps=1, eval_dataset="none")
    run, whole, before = (folder / name for name in ("run", "whole", "before"))
    with dying_runs() as runs:
        runs.plan(config)
        interrupted(runs, run)
        run.rename(before)
        assert runs.train(run).status == 0
        run.rename(whole)
        newest = step_checkpoints(before / "checkpoints")[-1]
        stream = enumerate(damages(newest, random.Random(0)))
        for number, damage in itertools.islice(stream, len(done), None):
            shutil.copytree(before, run)
            to_all = number % TO_ALL_EVERY == TO_ALL_EVERY - 1
            wrong = wrong_after_damage(runs, run, whole, damage, to_all=to_all)
            name = f"{damage.kind}, {damage.file}" + (", in all checkpoints" if to_all else "")
            yield {"what": "damage", "name": name, "num_kills": 0, "wrong": wrong}
            shutil.rmtree(run)


def _config(folder: Path, **changes: Any) -> dict[str, Any]:
    defaults = {
        "chat_template": "none",
        "lora_dropout": 0.1,
        "global_batch_size": 4,
        "per_device_train_batch_size": 2,
        "learning_rate": 3e-3,
        "report_samples": 0,
    }
    return tiny_config(folder, folder / "model", **{**defaults, **changes})


def measure(command: str, out: Path, number: int, seconds: float) -> None:
    """Append outcomes until there are `number` (of kills: that many kills)."""
    done = _read(out)
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name:
        save_tiny_model(Path(name) / "model")
        stream = {"points": points, "kills": kills, "flips": flips}[command](Path(name), done)
        for outcome in stream:
            done.append(outcome)
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(outcome) + "\n")
            reached = sum(one["num_kills"] for one in done) if command == "kills" else len(done)
            print(f"\r{command}: {reached}  wrong: {_num_wrong(done)}", end="", flush=True)
            if (command != "points" and reached >= number) or time.monotonic() > deadline:
                break
        stream.close()  # type: ignore[attr-defined]
    print()


def summary(out: Path) -> None:
    done = _read(out)
    ends = Counter(one["name"] for one in done)
    killed: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for one in done:
        killed[one["name"]] += one["num_kills"]
        wrong[one["name"]] += bool(one["wrong"])
    for name, num_ends in sorted(ends.items()):
        print(f"{name}: {num_ends} ends after {killed[name]} kills, {wrong[name]} wrong")
    print(f"all: {len(done)} ends, {sum(killed.values())} kills, {_num_wrong(done)} wrong")


def _read(out: Path) -> list[Outcome]:
    if not out.exists():
        return []
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def _num_wrong(done: list[Outcome]) -> int:
    return sum(bool(one["wrong"]) for one in done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("points", "kills", "flips"):
        command = commands.add_parser(name)
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--number", type=int, default=200)
        command.add_argument("--seconds", type=float, default=1e9)
    commands.add_parser("summary").add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "summary":
        summary(arguments.out)
    else:
        measure(arguments.command, arguments.out, arguments.number, arguments.seconds)


if __name__ == "__main__":
    main()
