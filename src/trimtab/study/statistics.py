"""Does an arm differ from the reference: a t interval over seeds, and what it lets one say.

Runs of one seed share rows, order and initial values, so they are compared in pairs: N seeds give
N differences of mean held-out loss. The rows of one run are not independent runs, so they are
never counted as such: the interval has N − 1 degrees of freedom (Student, 1908).

One interval decides. It lies inside the equivalence margin: *equivalent*, even where it excludes 0,
since such a difference matters to nobody (two one-sided tests; Schuirmann, 1987). Else it lies on
one side of 0: *better* or *worse*. Else: *undecided*. Equivalence is asked first, so that
differences of rounding alone, which may well have one sign in every seed, are no finding.

With K arms beside the reference each interval has the level 1 − 0.05 / K (Bonferroni), so that all
of them hold together in 95% of studies, and each verdict can be read off its interval. A step-down
correction such as Holm's finds a little more, but has no intervals that say the same.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Verdict = Literal["better", "worse", "equivalent", "undecided"]
Array = NDArray[np.float64]

ALPHA = 0.05
"""The chance that any arm of a study which differs in nothing is called better or worse."""
POWER = 0.8
MOST_SEEDS_TOLD = 100


@dataclass(frozen=True, slots=True)
class Comparison:
    """An arm against the reference; the effect is arm − reference, so that negative is better.

    effect_nats: the mean of the paired differences, in nats per trainable token; reference_nats:
    the reference's mean; interval: of the effect; sd_nats: the standard deviation of the
    differences. All are None where too few pairs of runs came to a loss.
    margin_nats: the differences that count as none. more_seeds: about how many would settle what is
    undecided, None where that is not known or over 100. because: a clause that says why.
    """

    verdict: Verdict
    because: str
    num_pairs: int
    effect_nats: float | None = None
    reference_nats: float | None = None
    interval: tuple[float, float] | None = None
    sd_nats: float | None = None
    margin_nats: float | None = None
    more_seeds: int | None = None

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Comparison:
        interval = record["interval"]
        pair = None if interval is None else (interval[0], interval[1])
        return cls(**{**record, "interval": pair})

    @property
    def effect_share(self) -> float | None:
        """The effect as a share of the reference's mean."""
        if self.effect_nats is None or not self.reference_nats:
            return None
        return self.effect_nats / self.reference_nats

    @property
    def interval_share(self) -> tuple[float, float] | None:
        """The interval as shares of the reference's mean."""
        if self.interval is None or not self.reference_nats:
            return None
        return self.interval[0] / self.reference_nats, self.interval[1] / self.reference_nats


def compare(
    reference: Sequence[float],
    arm: Sequence[float],
    *,
    equivalence_margin: float,
    num_arms: int = 1,
    is_deterministic: bool = False,
) -> Comparison:
    """The verdict on mean held-out losses by seed, paired by their position.

    A loss that is not finite is a run that diverged. `equivalence_margin` is a share of the
    reference's mean loss; `num_arms` counts the arms beside the reference that are compared
    together. `is_deterministic` is said of a quantity that no seed need move, such as memory: what
    is the same in every seed is then certain, where a loss that is the same counts once. Raises
    ValueError where the two differ in length or the margin is not positive.
    """
    if len(reference) != len(arm):
        raise ValueError(f"{len(reference)} runs of the reference and {len(arm)} of the arm")
    if not equivalence_margin > 0:
        raise ValueError(f"the equivalence margin is {equivalence_margin}, which is not above 0")
    if not all(map(math.isfinite, (*reference, *arm))):
        return _with_divergence(reference, arm)
    if not reference:
        return Comparison("undecided", "no seed has run in both arms yet", 0)
    pairs = np.array([reference, arm], dtype=np.float64)
    differences = pairs[1] - pairs[0]
    effect, mean = float(differences.mean()), float(pairs[0].mean())
    measured = Comparison(
        "undecided",
        "one seed tells nothing of how seeds differ",
        len(differences),
        effect_nats=effect,
        reference_nats=mean,
        margin_nats=equivalence_margin * mean,
    )
    if len(differences) < 2:
        return measured
    if not is_deterministic and len(np.unique(pairs, axis=1)[0]) < 2:
        because = (
            "the seeds changed nothing in these runs, so that they count as one; where data_seed "
            "is not set they move the order of the rows"
        )
        return replace(measured, because=because)
    return _judged(measured, differences, ALPHA / num_arms)


def t_interval(differences: Sequence[float] | Array, *, level: float) -> tuple[float, float]:
    """The t interval of the mean, with N − 1 degrees of freedom; a point where all are equal.

    Raises ValueError below two differences.
    """
    if len(differences) < 2:
        raise ValueError("a t interval takes two differences at the least")
    values = np.asarray(differences, dtype=np.float64)
    mean, standard_error = float(values.mean()), float(stats.sem(values))
    if standard_error == 0:
        return mean, mean
    low, high = stats.t.interval(level, len(values) - 1, loc=mean, scale=standard_error)
    return float(low), float(high)


def _with_divergence(reference: Sequence[float], arm: Sequence[float]) -> Comparison:
    """Runs without a loss have no difference; only all of one side against none is told apart.

    That is a rule and no test: it is outside the 5% that `ALPHA` is.
    """
    num = len(arm)
    arm_diverged = sum(not math.isfinite(loss) for loss in arm)
    reference_diverged = sum(not math.isfinite(loss) for loss in reference)
    told = (
        f"came to no loss in {arm_diverged} of {num} seeds, the reference in {reference_diverged}"
    )
    verdict: Verdict = "undecided"
    if num > 1 and (arm_diverged, reference_diverged) == (num, 0):
        verdict = "worse"
    elif num > 1 and (arm_diverged, reference_diverged) == (0, num):
        verdict = "better"
    return Comparison(verdict, told, num)


def _judged(measured: Comparison, differences: Array, alpha: float) -> Comparison:
    effect, margin = measured.effect_nats, measured.margin_nats
    assert effect is not None and margin is not None
    interval = low, high = t_interval(differences, level=1 - alpha)
    sd = float(differences.std(ddof=1))
    judged = replace(measured, interval=interval, sd_nats=sd)
    if -margin < low and high < margin:
        because = "the whole interval lies within the margin"
        return replace(judged, verdict="equivalent", because=because)
    if high < 0:
        return replace(judged, verdict="better", because="the whole interval lies below 0")
    if low > 0:
        return replace(judged, verdict="worse", because="the whole interval lies above 0")
    needed = seeds_needed(effect, sd, margin, alpha=alpha)
    because = "the interval holds 0 and reaches past the margin"
    # What was observed may look settled to this rule while its own interval is not yet.
    more = None if needed is None else max(1, needed - len(differences))
    return replace(judged, because=because, more_seeds=more)


def seeds_needed(effect: float, sd: float, margin: float, *, alpha: float = ALPHA) -> int | None:
    """Seeds after which 4 studies of 5 would settle it, were effect and deviation as observed.

    That is the smaller of the two numbers that a difference and an equivalence would take; None
    over 100. A few seeds know their deviation poorly, so this is a guide and no promise.
    """
    if sd == 0:
        return 2
    numbers = [_seeds_for(abs(effect) / sd, alpha)]
    if abs(effect) < margin:
        # Both ends must lie inside, so each is given half of what may go wrong.
        numbers.append(_seeds_for((margin - abs(effect)) / sd, alpha, power=1 - (1 - POWER) / 2))
    found = [number for number in numbers if number is not None]
    return min(found, default=None)


def _seeds_for(effect_size: float, alpha: float, *, power: float = POWER) -> int | None:
    """The smallest number of pairs whose two-sided t test has the power; None over 100."""

    def is_enough(number: int) -> bool:
        df, shift = number - 1, effect_size * math.sqrt(number)
        bound = stats.t.isf(alpha / 2, df)
        # The lower tail as its mirror image: `cdf` there is not a number for many shifts.
        reached = stats.nct.sf(bound, df, shift) + stats.nct.sf(bound, df, -shift)
        return bool(reached >= power)

    numbers = range(2, MOST_SEEDS_TOLD + 1)
    position = bisect_left(numbers, True, key=is_enough)
    return numbers[position] if position < len(numbers) else None
