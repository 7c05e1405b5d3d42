"""Does a search find the rate of a real run, from a start ten times off, at the cost of one run?

    python benchmarks/tuning.py run --model DIR --data gsm8k_train.jsonl --out DIR
    python benchmarks/tuning.py run --tiny --out DIR --num-updates 60 --batch 8
    python benchmarks/tuning.py summary DIR

The oracle: runs of the full length at nine rates, a third of a decade apart, around the plan's own.
Then two searches with the budget of one run, from ten times the oracle's best rate and from a tenth
of it, and full runs at what each started from and came to. All full runs are scored on the same
rows, which no search sees. Each is a line of DIR/runs-0.jsonl as soon as it has ended; asked again,
the command goes on. `--share 0/2` and `--share 1/2` beside it, with a thread each, do half of the
oracle and, asked again, a search each. `--tiny` makes a small model, taught a little beforehand,
with rows out of the standard library's docstrings: for the way through the benchmark, not for its
figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.tiny import save_tiny_model
from transformers import AutoTokenizer

import trimtab
from trimtab.data.stdlib_docstrings import find_pairs, standard_library_folder
from trimtab.engine.observer import Silent
from trimtab.planning.effort import QUICK
from trimtab.planning.rules.ruling import rounded
from trimtab.runs.ledger import Ledger
from trimtab.search.paired import paired_difference
from trimtab.workflow.trial_plans import TrialBench, trial_bench
from trimtab.workflow.trial_runs import TrialRun, run_trial

ORACLE_STEP = 10 ** (1 / 3)
ORACLE_PLACES = range(-4, 5)
OFF = {"too high": 10.0, "too low": 0.1}
TINY_STEPS = 300
MAX_TINY_CHARACTERS = 120


class Told(Silent):
    def noted(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


def write_rows(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def tiny_files(folder: Path) -> tuple[Path, Path]:
    """A model of two layers that has read half of the docstrings, and rows of the other half."""
    pairs = find_pairs(standard_library_folder())
    read, asked = pairs[0::2], pairs[1::2]
    data = folder / "tiny.jsonl"
    write_rows(
        data,
        [{"question": pair.source[:MAX_TINY_CHARACTERS], "answer": pair.summary} for pair in asked],
    )
    taught = folder / "taught"
    if not (taught / "model").is_dir():
        config = {
            "model": str(save_tiny_model(folder / "random")),
            "dataset": write_rows(folder / "read.jsonl", [{"text": pair.summary} for pair in read]),
            "method": "full",
            "learning_rate": 0.01,
            "global_batch_size": 8,
            "max_steps": TINY_STEPS,
            "precision": "fp32",
            "report_samples": 0,
            "output_dir": str(taught),
        }
        trimtab.train(config)
    return taught / "model", data


def short_rows(given: argparse.Namespace) -> list[dict[str, str]]:
    """Those of at most `--max-row-tokens` tokens of question and answer, in the file's order."""
    rows = [json.loads(line) for line in given.data.read_text(encoding="utf-8").splitlines()]
    if given.max_row_tokens is None:
        return rows
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    texts = [f"{row['question']} {row['answer']}" for row in rows]
    lengths = map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])
    return [
        row
        for row, num_tokens in zip(rows, lengths, strict=True)
        if num_tokens <= given.max_row_tokens
    ]


def configs(given: argparse.Namespace, method: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the searches, and of full runs: they hold out different rows."""
    rows = short_rows(given)
    num_train = given.num_updates * given.batch
    middle = num_train + given.num_search_rows
    end = middle + given.num_judge_rows
    if len(rows) < end:
        sys.exit(f"{given.data} has {len(rows)} such rows, and {end} are needed.")
    shared = {
        "model": str(given.model),
        "dataset": write_rows(given.out / "train.jsonl", rows[:num_train]),
        "dataset_columns": {"prompt": "question", "completion": "answer"},
        "method": method,
        "max_steps": given.num_updates,
        "global_batch_size": given.batch,
        "per_device_train_batch_size": min(given.batch, given.micro_batch),
        "activation_checkpointing": "off",
        "precision": given.precision,
        "report_samples": 0,
    }
    search = write_rows(given.out / "search.jsonl", rows[num_train:middle])
    judge = write_rows(given.out / "judge.jsonl", rows[middle:end])
    return shared | {"eval_dataset": search}, shared | {"eval_dataset": judge}


class Records:
    """What all shares have written; this one adds to a ledger of its own."""

    def __init__(self, folder: Path, share: int = 0) -> None:
        self._folder = folder
        self._own = Ledger(folder / f"runs-{share}.jsonl")

    def append(self, record: dict[str, Any]) -> None:
        self._own.append(record)

    def read(self) -> list[dict[str, Any]]:
        paths = sorted(self._folder.glob("runs-*.jsonl"))
        return [record for path in paths for record in Ledger(path).read().records]


class Runs:
    """The full runs of one method by their rate, each made once."""

    def __init__(self, records: Records, method: str, bench: TrialBench) -> None:
        self._records, self._method, self._bench = records, method, bench

    def at(self, learning_rate: float) -> TrialRun:
        known = runs_of(self._records, self._method)
        if learning_rate in known:
            return known[learning_rate]
        run = run_trial(self._bench.order({"learning_rate": learning_rate}))
        self._records.append(
            {"kind": "run", "method": self._method, "rate": learning_rate, "run": run.to_json()}
        )
        came_to = run.diverged or f"{run.eval_loss:.4f} nats per token"
        took = f"{run.total_seconds:.0f} s"
        print(f"{self._method}, {learning_rate:g}: {came_to}, {took}", file=sys.stderr, flush=True)
        return run


def runs_of(records: Records, method: str) -> dict[float, TrialRun]:
    return {
        line["rate"]: TrialRun.from_json(line["run"])
        for line in records.read()
        if line["kind"] == "run" and line["method"] == method
    }


def best_of(runs: dict[float, TrialRun], rates: Sequence[float]) -> float:
    """The rate with the lowest loss. Exits where every run diverged."""
    sound = {
        rate: loss for rate in rates if rate in runs and (loss := runs[rate].eval_loss) is not None
    }
    if not sound:
        sys.exit("Every run of the oracle diverged.")
    return min(sound, key=sound.__getitem__)


def oracle_of(records: Records, method: str, bench: TrialBench, prior: float | None) -> list[float]:
    """As settled by the first call: a finished search moves the plan's own rate."""
    for line in records.read():
        if line["kind"] == "oracle" and line["method"] == method:
            found: list[float] = line["rates"]
            return found
    middle = prior or float(bench.plan.decision("learning_rate").value)
    rates = [rounded(middle * ORACLE_STEP**place, 3) for place in ORACLE_PLACES]
    records.append({"kind": "oracle", "method": method, "rates": rates})
    return rates


def run(given: argparse.Namespace) -> None:
    given.out.mkdir(parents=True, exist_ok=True)
    if given.tiny:
        given.model, given.data = tiny_files(given.out)
        given.precision = "fp32"
    share, num_shares = given.share
    records = Records(given.out, share)
    for method in given.methods:
        searching, judging = configs(given, method)
        bench = trial_bench({**judging, "output_dir": str(given.out / "bench")}, effort=QUICK)
        runs = Runs(records, method, bench)
        oracle = oracle_of(records, method, bench, given.prior)
        for rate in oracle[share::num_shares]:
            runs.at(rate)
        if left := set(oracle) - set(runs_of(records, method)):
            print(f"{method}: {len(left)} runs of the oracle are another share's", file=sys.stderr)
            continue
        best = best_of(runs_of(records, method), oracle)
        for name, factor in list(OFF.items())[share::num_shares]:
            start = rounded(best * factor, 3)
            folder = given.out / f"{method}-{name.replace(' ', '-')}"
            config = {**searching, "learning_rate": start, "output_dir": str(folder)}
            result = trimtab.tune(config, budget=given.budget, observer=Told())
            rate = float(result.values["learning_rate"])
            runs.at(start)
            runs.at(rate)
            record = {
                "kind": "search",
                "method": method,
                "start_is": name,
                "start": start,
                "rate": rate,
                "oracle": oracle,
                "num_runs": len(result.runs),
                "num_steps": result.num_steps,
                "share_of_run": result.cost.share_of_run,
                "seconds": result.cost.seconds,
                "verdict": result.verdict,
            }
            if record not in records.read():
                records.append(record)
    summary(given)


def summary(given: argparse.Namespace) -> None:
    """Excesses are shares of the oracle's loss, with 95% intervals over the rows that judge."""
    records = Records(given.out)
    print("| method | start | | best of the oracle | tuned | excess | untuned | cost, runs |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for line in records.read():
        if line["kind"] != "search":
            continue
        runs = runs_of(records, line["method"])
        best = best_of(runs, line["oracle"])
        tuned, untuned = runs[line["rate"]], runs[line["start"]]
        cells = [
            line["method"],
            f"{line['start']:g}",
            line["start_is"],
            f"{best:g}: {runs[best].eval_loss:.4f}",
            f"{line['rate']:g}",
            excess(tuned, runs[best]),
            excess(untuned, runs[best]),
            f"{line['share_of_run']:.2f} in {line['num_runs']} of {line['num_steps']} updates",
        ]
        print("| " + " | ".join(cells) + " |")


def excess(run: TrialRun, oracle: TrialRun) -> str:
    if run.diverged is not None:
        return f"diverged, {run.diverged}"
    difference = paired_difference(
        run.row_losses, oracle.row_losses, oracle.row_num_trainable_tokens
    )
    assert oracle.eval_loss is not None
    shares = [
        each / oracle.eval_loss for each in (difference.effect, difference.low, difference.high)
    ]
    return "{:+.2%} ({:+.2%} to {:+.2%})".format(*shares)


def share_of(text: str) -> tuple[int, int]:
    share, num_shares = map(int, text.split("/"))
    if not 0 <= share < num_shares:
        raise ValueError
    return share, num_shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("run")
    one.add_argument("--model", type=Path)
    one.add_argument("--data", type=Path, help="rows of question and answer")
    one.add_argument("--tiny", action="store_true")
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--methods", nargs="+", choices=["lora", "full"], default=["lora", "full"])
    one.add_argument("--num-updates", type=int, default=120)
    one.add_argument("--batch", type=int, default=16)
    one.add_argument("--micro-batch", type=int, default=8)
    one.add_argument("--precision", default="bf16")
    one.add_argument("--prior", type=float, help="the oracle's middle; the plan's rate otherwise")
    one.add_argument("--max-row-tokens", type=int, help="of question and answer together")
    one.add_argument("--share", type=share_of, default=(0, 1), metavar="K/N")
    one.add_argument("--num-search-rows", type=int, default=64)
    one.add_argument("--num-judge-rows", type=int, default=256)
    one.add_argument("--budget", type=float, default=1.0, help="of each search, in full runs")
    one.set_defaults(command=run)
    one = commands.add_parser("summary")
    one.add_argument("out", type=Path)
    one.set_defaults(command=summary)
    given = parser.parse_args()
    if given.command is run and not given.tiny and not (given.model and given.data):
        parser.error("--model and --data, or --tiny, are needed")
    given.command(given)


if __name__ == "__main__":
    main()
