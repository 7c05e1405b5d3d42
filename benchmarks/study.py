"""How often does a study call a difference that is none, and how large must one be to be found?

    python benchmarks/study.py run --out study_runs.jsonl
    python benchmarks/study.py calibrate --runs study_runs.jsonl
    python benchmarks/study.py power --runs study_runs.jsonl --out power.jsonl --plot power.svg

`run` makes real runs of a tiny model, in one process and one thread; it and `power` go on where an
earlier call with the same file stopped. `calibrate` judges studies of three seeds: arms of the same
settings and disjoint seeds; and arms of the same seeds in micro-batches of 8 × 1 and 4 × 2, which
differ in rounding. `power` plants a difference of known size beside the noise of real pairs and
counts the studies that find it. Both draw the seeds of each study from the same runs, so that two
studies may share a run: their binomial intervals are a little narrower than of independent ones.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.runs import tiny_config, write_rows
from support.tiny import save_tiny_model

from trimtab.runs.ledger import Ledger
from trimtab.study.statistics import compare
from trimtab.workflow.trial_plans import TrialBench, trial_bench
from trimtab.workflow.trial_runs import run_trial

NUM_STUDIES = 200
NUM_SEEDS = 3
CONFIG = {
    "method": "full",
    "learning_rate": 0.01,
    "global_batch_size": 8,
    "per_device_train_batch_size": 8,
    "max_steps": 12,
    "eval_dataset": 0.25,
}
ARMS: dict[str, dict[str, Any]] = {
    "8x1": {},
    "4x2": {"per_device_train_batch_size": 4},
    "rate": {"learning_rate": 0.011},
}
"""`rate` is for its paired noise: its own mean difference is taken out before one is planted."""
NUM_RUNS = 240
MARGINS = (0.005, 0.0001)
"""The default, and one so small that it hides next to nothing."""
PLANTED = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04)
"""Differences, as shares of the loss."""
POWER_SEEDS = range(2, 9)
POWER_STUDIES = 200


def tiny_bench(folder: Path) -> TrialBench:
    """Two layers of width 32, 48 rows to train on and 16 held out."""
    model = save_tiny_model(folder / "model")
    write_rows(folder / "rows.jsonl", num_rows=64)
    return trial_bench(tiny_config(folder, model, **CONFIG))


def make_runs(out: Path) -> None:
    torch.set_num_threads(1)
    ledger = Ledger(out)
    done = {(line["arm"], line["seed"]) for line in ledger.read().records}
    # Seeds in the outer loop: a file that is cut short holds pairs.
    wanted = [(arm, seed) for seed in range(NUM_RUNS) for arm in ARMS if (arm, seed) not in done]
    with tempfile.TemporaryDirectory() as folder:
        bench = tiny_bench(Path(folder))
        for number, (arm, seed) in enumerate(wanted, 1):
            run = run_trial(bench.order(ARMS[arm], seed=seed))
            ledger.append({"arm": arm, "seed": seed, "eval_loss": run.eval_loss})
            if number % 50 == 0:
                print(f"{number}/{len(wanted)}", file=sys.stderr, flush=True)


def losses(runs: Path) -> dict[str, np.ndarray]:
    """By arm, over the seeds that all arms have run."""
    found: dict[str, dict[int, float]] = {arm: {} for arm in ARMS}
    for line in Ledger(runs).read().records:
        found[line["arm"]][line["seed"]] = line["eval_loss"]
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in found.values())))
    return {
        arm: np.array([by_seed[seed] for seed in seeds[:NUM_RUNS]])
        for arm, by_seed in found.items()
    }


def calibration_studies(
    by_arm: dict[str, np.ndarray],
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """The losses of both arms of each study."""
    same, other = by_arm["8x1"], by_arm["4x2"]
    rng = np.random.default_rng(0)
    drawn = [rng.choice(len(same), 2 * NUM_SEEDS, replace=False) for _ in range(NUM_STUDIES)]
    return {
        "disjoint seeds": [(same[seeds[:NUM_SEEDS]], same[seeds[NUM_SEEDS:]]) for seeds in drawn],
        "8 × 1 against 4 × 2": [
            (same[seeds[:NUM_SEEDS]], other[seeds[:NUM_SEEDS]]) for seeds in drawn
        ],
    }


def calibrate(runs: Path) -> None:
    by_arm = losses(runs)
    spread = np.std(by_arm["8x1"], ddof=1) / np.mean(by_arm["8x1"])
    print(f"{len(by_arm['8x1'])} runs of 8 × 1: deviation over seeds {spread:.2%} of the loss")
    print("| arms | studies | margin | better | worse | equivalent | undecided | called | 95% |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, studies in calibration_studies(by_arm).items():
        for margin in MARGINS:
            verdicts = [
                compare(reference.tolist(), arm.tolist(), equivalence_margin=margin).verdict
                for reference, arm in studies
            ]
            counts = [
                verdicts.count(word) for word in ("better", "worse", "equivalent", "undecided")
            ]
            called = counts[0] + counts[1]
            interval = binomtest(called, len(studies)).proportion_ci()
            print(
                f"| {name} | {len(studies)} | {margin:.2%} | "
                + " | ".join(map(str, counts))
                + f" | {called / len(studies):.1%} | {interval.low:.1%} to {interval.high:.1%} |"
            )


def noises(by_arm: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """References and arms whose differences are noise alone, of mean 0."""
    same = by_arm["8x1"]
    paired = by_arm["rate"] - same
    half = len(same) // 2
    unpaired = same[half : 2 * half] - same[:half]
    return {
        "paired": (same, paired - paired.mean()),
        "disjoint seeds": (same[:half], unpaired - unpaired.mean()),
    }


def detection(
    reference: np.ndarray, noise: np.ndarray, planted: float, num_seeds: int
) -> tuple[float, float]:
    """Shares of studies that find what was planted, and that find its opposite."""
    rng = np.random.default_rng([num_seeds, round(1e6 * planted)])
    found = wrong = 0
    shift = planted * reference.mean()
    for _ in range(POWER_STUDIES):
        seeds = rng.choice(len(reference), num_seeds, replace=False)
        arm = reference[seeds] + noise[seeds] + shift
        verdict = compare(
            reference[seeds].tolist(), arm.tolist(), equivalence_margin=MARGINS[0]
        ).verdict
        found += verdict == "worse"
        wrong += verdict == "better"
    return found / POWER_STUDIES, wrong / POWER_STUDIES


def power(runs: Path, out: Path, plot: Path) -> None:
    by_arm = losses(runs)
    ledger = Ledger(out)
    done = {
        (line["noise"], line["planted"], line["num_seeds"]): (line["found"], line["wrong"])
        for line in ledger.read().records
    }

    def cell(name: str, planted: float, num_seeds: int) -> tuple[float, float]:
        key = (name, planted, num_seeds)
        if key not in done:
            found, wrong = detection(*by_noise[name], planted, num_seeds)
            done[key] = found, wrong
            ledger.append(
                {"noise": name, "planted": planted, "num_seeds": num_seeds}
                | {"found": found, "wrong": wrong}
            )
        return done[key]

    by_noise = noises(by_arm)
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    for position, (name, (reference, noise)) in enumerate(by_noise.items(), 1):
        axes = figure.add_subplot(1, 2, position)
        deviation = noise.std(ddof=1) / reference.mean()
        title = f"{name}: deviation of a difference {deviation:.2%} of the loss"
        print(f"\n{title}\n\n| planted | " + " | ".join(f"{n} seeds" for n in POWER_SEEDS) + " |")
        print("| --- |" + " --- |" * len(POWER_SEEDS))
        most_wrong = 0.0
        for planted in PLANTED:
            shares = [cell(name, planted, number) for number in POWER_SEEDS]
            most_wrong = max([most_wrong, *(wrong for _, wrong in shares)])
            print(f"| {planted:.2%} | " + " | ".join(f"{share:.0%}" for share, _ in shares) + " |")
            axes.plot(POWER_SEEDS, [share for share, _ in shares], marker="o", label=f"{planted:g}")
        print(f"\nfound with the wrong sign: {most_wrong:.1%} at the most")
        axes.set(title=title, xlabel="seeds", ylabel="studies that find it", ylim=(-0.02, 1.02))
        axes.title.set_fontsize(8)
        axes.legend(title="planted, share of the loss", fontsize=7, title_fontsize=7)
    figure.savefig(plot, metadata={"Date": None})
    print(f"\n{plot}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run").add_argument("--out", type=Path, required=True)
    commands.add_parser("calibrate").add_argument("--runs", type=Path, required=True)
    powering = commands.add_parser("power")
    powering.add_argument("--runs", type=Path, required=True)
    powering.add_argument("--out", type=Path, required=True)
    powering.add_argument("--plot", type=Path, required=True)
    given = parser.parse_args()
    match given.command:
        case "run":
            make_runs(given.out)
        case "calibrate":
            calibrate(given.runs)
        case "power":
            power(given.runs, given.out, given.plot)


if __name__ == "__main__":
    main()
