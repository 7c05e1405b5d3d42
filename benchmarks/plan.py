"""How right is a plan? Predicted against measured, in fresh processes, on one machine.

    python benchmarks/plan.py memory --model DIR --text FILE.jsonl --out FILE.jsonl
    python benchmarks/plan.py grid --model DIR --text FILE.jsonl --out FILE.jsonl
    python benchmarks/plan.py summary FILE.jsonl

`memory`: for each configuration of a grid, a plan is made in one process (its trials in their own,
number formats and the range of rates left out), and two updates are trained in another. `grid`:
tokens a second of every micro-batch and checkpointing, against what a plan takes by itself.
`FILE.jsonl` of `--text` gives words to make rows of. Outcomes are appended one by one; what is
there already is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimtab.cli.entry import KERNEL_CACHES, TUNABLES, VARIABLE

NUM_UPDATES = 2
SEED = 0
MEMORY_LIMIT_GIB = 20


@dataclass(frozen=True)
class Configuration:
    """One run. Rows are `text` (all tokens trained on) or prompt and completion."""

    method: str
    precision: str
    checkpointing: str | int
    length: int
    micro: int
    ragged: bool
    format: str = "text"
    accumulation: int = 1


def configurations() -> Iterator[Configuration]:
    """Every length and micro-batch of at most 8,192 tokens meets every other setting somewhere."""
    shapes = [
        (64, 1), (64, 8), (64, 32), (128, 4), (128, 16), (256, 1), (256, 4), (256, 16),
        (512, 2), (512, 8), (1024, 1), (1024, 2), (1024, 4), (1024, 8),
    ]  # fmt: skip
    options: tuple[str | int, ...] = ("off", 2, "full")
    for index, (length, micro) in enumerate(shapes):
        for variant in range(3):
            number = index + variant
            yield Configuration(
                method=("lora", "full")[(index + variant) % 2],
                precision=("bf16", "bf16", "fp32")[(index // 2 + variant) % 3],
                checkpointing=options[number % 3],
                length=length,
                micro=micro,
                ragged=(index + variant // 2) % 2 == 1,
                format=("text", "prompt_completion")[(index // 3 + variant) % 2],
                accumulation=2 if micro * length <= 1024 and variant == 1 else 1,
            )


def write_rows(path: Path, configuration: Configuration, words: list[str], num_rows: int) -> None:
    """Rows of words: long enough to fill `length`, or ragged lengths up to somewhat over it."""
    generator = random.Random(SEED)
    lines = []
    for _ in range(num_rows):
        share = min(1.2, generator.lognormvariate(-0.9, 0.6)) if configuration.ragged else 1.1
        num_words = max(8, int(share * configuration.length))
        taken = [generator.choice(words) for _ in range(num_words)]
        if configuration.format == "text":
            lines.append({"text": " ".join(taken)})
        else:
            cut = num_words // 2
            lines.append({"prompt": " ".join(taken[:cut]), "completion": " ".join(taken[cut:])})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def config_of(configuration: Configuration, model: str, rows: Path) -> dict[str, Any]:
    return {
        "model": model,
        "dataset": str(rows),
        "chat_template": "none",
        "method": configuration.method,
        "precision": configuration.precision,
        "activation_checkpointing": configuration.checkpointing,
        "max_length": configuration.length,
        "per_device_train_batch_size": configuration.micro,
        "gradient_accumulation_steps": configuration.accumulation,
        "max_steps": NUM_UPDATES,
        "eval_dataset": "none",
        "report_samples": 0,
        "memory_limit": f"{MEMORY_LIMIT_GIB}GiB",
        "learning_rate": 1e-5,
        "seed": SEED,
    }


def in_a_fresh_process(what: str, request: dict[str, Any]) -> dict[str, Any]:
    """This file's own `what` in another process, as the command `trimtab` would run it."""
    ended = subprocess.run(
        [sys.executable, __file__, what, json.dumps(request)],
        env={**os.environ, **KERNEL_CACHES, VARIABLE: TUNABLES},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        return {"failure": ended.stderr.strip().splitlines()[-1:]}
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


def plan_memory(request: dict[str, Any]) -> dict[str, Any]:
    """A plan whose number formats and rates are not probed; everything else as `trimtab plan`."""
    from trimtab.engine.observer import Silent
    from trimtab.planning.fact import Fact, Facts
    from trimtab.planning.plan import Plan
    from trimtab.planning.planner import make_plan
    from trimtab.planning.questions import PrecisionQuestion, RateRangeQuestion
    from trimtab.workflow.materials import Materials
    from trimtab.workflow.planning import resolve_config
    from trimtab.workflow.trial_points import with_earlier_points

    resolved = resolve_config(request["config"])
    materials = Materials(resolved.config, Silent())
    facts = Facts()
    while True:
        answer = make_plan(resolved, facts, output_dir="runs/benchmark")
        if isinstance(answer, Plan):
            break
        for question in answer:
            match question:
                case PrecisionQuestion():
                    facts = facts.adding([Fact("precision.key", question.key)])
                case RateRangeQuestion():
                    left_out = Fact("rate_range.failure", "left out")
                    facts = facts.adding([Fact("rate_range.key", question.key), left_out])
                case _:
                    found = tuple(materials.answer(question))
                    facts = facts.adding(with_earlier_points(found, facts))
    known = Facts().adding(answer.facts)
    settings = answer.settings()
    return {
        "predictions": asdict(answer.predictions),
        "probe_s": sum(fact.cost_s for fact in answer.facts if fact.id.startswith("trials.")),
        "points": known.value("trials.points") if "trials.points" in known else [],
        "run": known.value("run.micro_batches"),
        "trials": {
            name: known.value(f"trials.{name}")
            for name in ("process_bytes", "base_bytes", "loaded_bytes")
            if f"trials.{name}" in known
        },
        "chosen": {
            "micro": settings.per_device_train_batch_size,
            "checkpointing": settings.activation_checkpointing,
            "accumulation": settings.gradient_accumulation_steps,
        },
    }


def train_updates(request: dict[str, Any]) -> dict[str, Any]:
    """A run's own records of two updates, and the peak of the process that made it."""
    import trimtab
    from trimtab.engine.observer import Silent
    from trimtab.planning.effort import QUICK
    from trimtab.workflow.planning import plan_run, resolve_config

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        resolved = resolve_config({**request["config"], "output_dir": str(run)})
        planned = plan_run(resolved, Silent(), effort=QUICK)
        summary = trimtab.train(planned.plan)
        updates = [
            json.loads(line)
            for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        ]
    return {
        "peak_bytes": summary.peak_memory_bytes,
        "update_s": [one["seconds"] for one in updates],
        "num_tokens": [one["num_tokens"] for one in updates],
        "update_peaks": [one["peak_memory_bytes"] for one in updates],
    }


def words_of(text: Path) -> list[str]:
    return [word for word in text.read_text(encoding="utf-8")[:500_000].split() if word.isalpha()]


def done_in(out: Path) -> list[dict[str, Any]]:
    if not out.is_file():
        return []
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def append(out: Path, outcome: dict[str, Any]) -> None:
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(outcome) + "\n")


def measure_memory(model: str, text: Path, out: Path) -> None:
    words = words_of(text)
    seen = [one["configuration"] for one in done_in(out)]
    for configuration in configurations():
        if asdict(configuration) in seen:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows = Path(folder) / "rows.jsonl"
            num_rows = configuration.micro * configuration.accumulation * NUM_UPDATES
            write_rows(rows, configuration, words, num_rows)
            config = config_of(configuration, model, rows)
            predicted = in_a_fresh_process("_plan", {"config": config})
            measured = in_a_fresh_process("_train", {"config": config})
        outcome = {
            "configuration": asdict(configuration),
            "predicted": predicted,
            "measured": measured,
        }
        append(out, outcome)
        print(told(outcome), flush=True)


def told(outcome: dict[str, Any]) -> str:
    configuration = Configuration(**outcome["configuration"])
    if "failure" in outcome["predicted"] or "failure" in outcome["measured"]:
        return f"{configuration}: {outcome['predicted'].get('failure')} "
    memory, seconds = errors(outcome)
    gigabytes = outcome["measured"]["peak_bytes"] / 2**30
    return f"{memory:+.1%} memory, {seconds:+.1%} seconds, {gigabytes:.2f} GiB  {configuration}"


def errors(outcome: dict[str, Any]) -> tuple[float, float]:
    """Relative errors of the peak and of the seconds of the updates after the first."""
    predictions, measured = outcome["predicted"]["predictions"], outcome["measured"]
    memory = predictions["peak_memory_bytes"] / measured["peak_bytes"] - 1
    # An update's own tokens: ragged rows make unequal updates, and the prediction is of their mean.
    seconds, tokens = measured["update_s"][1:], measured["num_tokens"][1:]
    mean_tokens = statistics.mean(measured["num_tokens"])
    per_update = sum(seconds) / sum(tokens) * mean_tokens
    return memory, predictions["step_time_s"] / per_update - 1


GRID_MICRO = (1, 2, 4, 8, 16)
GRID_CHECKPOINTING: tuple[str | int, ...] = ("off", 2, "full")
GRID_UPDATES = 4
CONTENDER_SHARE = 0.9


def measure_grid(model: str, text: Path, out: Path) -> None:
    """Every pair of micro-batch and checkpointing at a global batch of 16, then its contenders.

    Contenders, which are timed twice more in turn, are what came within 10% of the best, and what
    the plan takes.
    """
    words = words_of(text)
    with tempfile.TemporaryDirectory() as folder:
        for method in ("lora", "full"):
            base = Configuration(method, "bf16", "off", 192, 16, ragged=True)
            rows = Path(folder) / f"{method}.jsonl"
            write_rows(rows, base, words, 16 * GRID_UPDATES)
            common = config_of(base, model, rows) | {
                "max_steps": GRID_UPDATES,
                "global_batch_size": 16,
            }
            decided = ("per_device_train_batch_size", "gradient_accumulation_steps")
            left_open = {*decided, "activation_checkpointing"}
            auto = {name: value for name, value in common.items() if name not in left_open}
            planned = in_a_fresh_process("_plan", {"config": auto})
            append(out, {"grid": method, "planned": planned})
            pairs = [(micro, each) for micro in GRID_MICRO for each in GRID_CHECKPOINTING]
            speeds = {pair: time_pair(method, pair, common, out) for pair in pairs}
            least = CONTENDER_SHARE * max(speeds.values())
            chosen = (planned["chosen"]["micro"], planned["chosen"]["checkpointing"])
            contenders = {pair for pair in pairs if speeds[pair] >= least} | {chosen}
            for _ in range(2):
                for pair in sorted(contenders, key=str):
                    time_pair(method, pair, common, out)


def time_pair(method: str, pair: tuple[int, str | int], common: dict[str, Any], out: Path) -> float:
    """Tokens a second of updates in this micro-batch and checkpointing; 0 where the run failed."""
    micro, checkpointing = pair
    config = common | {
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": 16 // micro,
        "activation_checkpointing": checkpointing,
    }
    measured = in_a_fresh_process("_train", {"config": config})
    outcome = {"grid": method, "micro": micro, "checkpointing": checkpointing}
    append(out, outcome | {"measured": measured})
    speed = 0.0 if "failure" in measured else tokens_per_s(measured)
    print(method, micro, checkpointing, f"{speed:.0f} tokens/s", flush=True)
    return speed


def tokens_per_s(measured: dict[str, Any]) -> float:
    """Of the median update after the first: a machine that others use stalls now and then."""
    timed = zip(measured["num_tokens"][1:], measured["update_s"][1:], strict=True)
    return statistics.median(tokens / seconds for tokens, seconds in timed)


def summarise(out: Path) -> None:
    outcomes = done_in(out)
    runs = [one for one in outcomes if "configuration" in one]
    whole = [
        one
        for one in runs
        if "failure" not in one["predicted"] and "failure" not in one["measured"]
    ]
    if whole:
        memory = [errors(one)[0] for one in whole]
        seconds = [errors(one)[1] for one in whole]
        print(f"{len(whole)} of {len(runs)} configurations")
        print(f"memory: mean error {statistics.mean(map(abs, memory)):.1%}, ", end="")
        print(f"worst {max(memory, key=abs):+.1%}, most under {min(memory):+.1%}")
        limit_bytes = MEMORY_LIMIT_GIB * 2**30
        num_over = sum(one["measured"]["peak_bytes"] > limit_bytes for one in whole)
        print(f"{num_over} runs outgrew the limit of {MEMORY_LIMIT_GIB} GiB")
        print(f"seconds: mean error {statistics.mean(map(abs, seconds)):.1%}, ", end="")
        print(f"worst {max(seconds, key=abs):+.1%}")
        for one in whole:
            print("  " + told(one))
    for method in ("lora", "full"):
        of_method = [one for one in outcomes if one.get("grid") == method]
        tried = [one for one in of_method if "micro" in one and "failure" not in one["measured"]]
        if not tried:
            continue
        speeds: dict[tuple[int, Any], list[float]] = {}
        for one in tried:
            pair = (one["micro"], one["checkpointing"])
            speeds.setdefault(pair, []).append(tokens_per_s(one["measured"]))
        means = {pair: statistics.mean(values) for pair, values in speeds.items()}
        best = max(means, key=lambda pair: means[pair])
        planned = next(one["planned"] for one in of_method if "planned" in one)
        if "failure" in planned:
            print(f"{method}: no plan, {planned['failure']}")
            continue
        chosen = (planned["chosen"]["micro"], planned["chosen"]["checkpointing"])
        if chosen not in means:
            print(f"{method}: auto {chosen} was not timed, best {best}")
            continue
        print(
            f"{method}: auto {chosen} {means[chosen]:.0f} tokens/s, best {best} "
            f"{means[best]:.0f}: {means[chosen] / means[best]:.1%}"
        )


def main() -> None:
    hidden = {"_plan": plan_memory, "_train": train_updates}
    if len(sys.argv) == 3 and sys.argv[1] in hidden:
        print(json.dumps(hidden[sys.argv[1]](json.loads(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("memory", "grid"):
        command = commands.add_parser(name)
        command.add_argument("--model", required=True)
        command.add_argument("--text", type=Path, required=True)
        command.add_argument("--out", type=Path, required=True)
    commands.add_parser("summary").add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "memory":
        measure_memory(arguments.model, arguments.text, arguments.out)
    elif arguments.command == "grid":
        measure_grid(arguments.model, arguments.text, arguments.out)
    else:
        summarise(arguments.out)


if __name__ == "__main__":
    main()
