"""What does the death of one of two ranks cost? Nothing, or this says what.

    python benchmarks/ranks.py kills --out FILE.jsonl [--number 50]
    python benchmarks/ranks.py summary FILE.jsonl
    python benchmarks/ranks.py speed

Runs of two ranks on tiny random models: at a random moment one rank is killed by SIGKILL, the
other must end within 30 seconds, and the run, resumed and by chance killed again, must come bit
for bit to the end of one that was left alone. Outcomes are appended one by one; what is there
already is not done again. `--seconds` stops after so long, to go on another time. `speed` is told
in rank_speed.py.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.dying_ranks import dying_ranks, killed_until_done, timed_whole
from support.runs import tiny_config
from support.tiny import save_tiny_model

STORIES_OF_A_KIND = 5
KINDS: dict[str, dict[str, Any]] = {
    "lora, replicated, dropout, packed, best kept": {
        "packing": True,
        "max_length": 64,
        "lora_dropout": 0.1,
        "global_batch_size": 4,
        "per_device_train_batch_size": 1,
        "eval_steps": 5,
        "save_steps": 4,
    },
    "full, replicated, accumulated, best kept": {
        "method": "full",
        "global_batch_size": 8,
        "per_device_train_batch_size": 2,
        "eval_steps": 3,
        "save_steps": 5,
    },
    "full, sharded, accumulated, best kept": {
        "method": "full",
        "parallelism": "shard",
        "global_batch_size": 8,
        "per_device_train_batch_size": 2,
        "eval_steps": 3,
        "save_steps": 3,
    },
    "lora, sharded, dropout": {
        "parallelism": "shard",
        "lora_dropout": 0.1,
        "global_batch_size": 4,
        "per_device_train_batch_size": 2,
        "eval_steps": 10,
        "save_steps": 3,
    },
}
Outcome = dict[str, Any]


def kills(folder: Path, done: list[Outcome]) -> Iterator[Outcome]:
    """Each kind of run in turn, a few stories at a time; endless."""
    for turn in itertools.count(len(done) // STORIES_OF_A_KIND):
        name = list(KINDS)[turn % len(KINDS)]
        config = _config(folder, **KINDS[name])
        with dying_ranks() as runs:
            runs.plan(config)
            whole, whole_s = timed_whole(runs, folder)
            for number in range(STORIES_OF_A_KIND):
                choice = random.Random(f"{turn} {number} {len(done)}")
                story = killed_until_done(
                    runs, folder / "run", whole, whole_s=whole_s, choice=choice
                )
                yield {"name": name, **story.__dict__}
            shutil.rmtree(whole)


def _config(folder: Path, **changes: Any) -> dict[str, Any]:
    defaults = {
        "chat_template": "none",
        "max_steps": 20,
        "learning_rate": 3e-3,
        "report_samples": 0,
    }
    return tiny_config(folder, folder / "model", **{**defaults, **changes})


def measure(out: Path, number: int, seconds: float) -> None:
    """Append outcomes until there are `number` kills."""
    done = _read(out)
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name:
        save_tiny_model(Path(name) / "model")
        for outcome in kills(Path(name), done):
            done.append(outcome)
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(outcome) + "\n")
            reached = sum(one["num_kills"] for one in done)
            wrong = sum(bool(one["wrong"]) for one in done)
            print(f"\rkills: {reached}  wrong ends: {wrong}", end="", flush=True)
            if reached >= number or time.monotonic() > deadline:
                break
    print()


def summary(out: Path) -> None:
    done = _read(out)
    for name in [*KINDS, "all"]:
        ours = [one for one in done if name in (one["name"], "all")]
        if ours:
            num_kills = sum(one["num_kills"] for one in ours)
            wrong = sum(bool(one["wrong"]) for one in ours)
            longest_s = max(one["longest_s"] for one in ours)
            print(
                f"{name}: {len(ours)} ends after {num_kills} kills, {wrong} wrong; the other rank "
                f"ended within {longest_s:.1f} s"
            )


def _read(out: Path) -> list[Outcome]:
    if not out.exists():
        return []
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("kills")
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--number", type=int, default=50)
    command.add_argument("--seconds", type=float, default=1e9)
    commands.add_parser("summary").add_argument("out", type=Path)
    command = commands.add_parser("speed")
    command.add_argument("--model", type=Path)
    command.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    command.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "speed":
        import rank_speed

        rank_speed.measure(arguments.model, arguments.precision, arguments.out)
    elif arguments.command == "summary":
        summary(arguments.out)
    else:
        measure(arguments.out, arguments.number, arguments.seconds)


if __name__ == "__main__":
    main()
