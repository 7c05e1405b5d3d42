"""What a search will do, settled before its first run: spaces, lengths, numbers of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from trimtab.errors import ConfigError
from trimtab.hyperparameters.catalogue import aliases, catalogue, nearest_names
from trimtab.planning.branch import decay_share, has_trunk
from trimtab.planning.plan import Plan
from trimtab.planning.proxy import proxy_warmup_steps
from trimtab.planning.rules.ruling import rounded
from trimtab.planning.settings import Settings
from trimtab.search.ranges import WHOLE, range_around

SamplerName = Literal["local", "tpe", "gp", "random", "grid"]
DEFAULT_BUDGET = 0.3
NUM_TRIALS = 6
NUM_TRIALS_MORE = 3
"""For each further hyperparameter."""
MIN_TRIALS = 4
MIN_NUM_STEPS = 10
NUM_SHORT_TRIALS = 4
BRANCHLESS = {"global_batch_size", "warmup_ratio"}
"""What moves the rates of single updates, so that runs of two lengths share none."""
SHORTER = 3
"""How many times shorter the second length is, from which the horizon's exponent is fitted."""


@dataclass(frozen=True, slots=True)
class Space:
    """A hyperparameter's range; `start` is the plan's value, None where the range lacks it."""

    name: str
    low: float
    high: float
    start: float | None

    @property
    def distribution(self) -> BaseDistribution:
        if self.name in WHOLE:
            return IntDistribution(int(self.low), int(self.high), log=True)
        return FloatDistribution(self.low, self.high, log=True)

    def value(self, proposed: float) -> float | int:
        """What is run where this was proposed: the start as it is, else sizes that are powers of
        two and rates of three digits."""
        is_whole = self.name in WHOLE
        if proposed == self.start:
            return int(proposed) if is_whole else proposed
        if not is_whole:
            return rounded(proposed, 3)
        lowest, highest = math.ceil(math.log2(self.low)), math.floor(math.log2(self.high))
        return int(2 ** min(max(round(math.log2(proposed)), lowest), highest))


@dataclass(frozen=True, slots=True)
class Design:
    """num_steps: weight updates of a run of the search, of the plan's global batch.

    run_num_steps, run_num_tokens: of the planned run. num_short_trials runs of short_num_steps, 0
    where the budget has no room for them; `short_branches` where each branches off a long one.
    """

    spaces: tuple[Space, ...]
    num_trials: int
    num_steps: int
    num_short_trials: int
    short_num_steps: int
    short_branches: bool
    run_num_steps: int
    run_num_tokens: int
    budget: float
    sampler: SamplerName
    seed: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(space.name for space in self.spaces)

    @property
    def has_reference(self) -> bool:
        """Whether the plan's own values are a run of their own, as the ranges lack one of them."""
        return self.start is None

    @property
    def start(self) -> dict[str, Any] | None:
        """The plan's own values; None where a range lacks one of them."""
        if any(space.start is None for space in self.spaces):
            return None
        return {space.name: space.start for space in self.spaces}

    def overrides(self, proposed: Mapping[str, float]) -> dict[str, Any]:
        return {space.name: space.value(proposed[space.name]) for space in self.spaces}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Design:
        return cls(**{**record, "spaces": tuple(Space(**each) for each in record["spaces"])})


def searched_names(written: Sequence[str]) -> tuple[str, ...]:
    """The catalogue's names of what is to be searched; the learning rate where nothing is said.

    Raises ConfigError for a name that has no range to search.
    """
    names = tuple(aliases().get(name, name) for name in written) or ("learning_rate",)
    for name in names:
        if name not in catalogue():
            near = ", ".join(nearest_names(name))
            raise ConfigError(
                f"{name} is no hyperparameter.", hint=f"Did you mean: {near}?" if near else None
            )
        if catalogue()[name].declaration.search is None:
            raise ConfigError(f"{name} has no range to search.", hint=_instead(name))
    if len(set(names)) < len(names):
        raise ConfigError("a hyperparameter is named twice.")
    return names


def _instead(name: str) -> str:
    if name in {"per_device_train_batch_size", "gradient_accumulation_steps"}:
        return "How an update is cut into pieces does not move it; search global_batch_size."
    if name == "warmup_steps":
        return "Search warmup_ratio, which means the same in runs of any length."
    ranges = [each for each, entry in catalogue().items() if entry.declaration.search is not None]
    return f"These have one: {', '.join(ranges)}. To compare values of another: trimtab study."


def _check_in_force(plan: Plan, names: Sequence[str]) -> None:
    """Raises ConfigError for a name that moves nothing in this run."""
    settings = plan.settings()
    idle: dict[str, str] = {}
    if settings.method == "full":
        idle["lora_r"] = plan.decision("lora_r").because
    if settings.lr_scheduler_type == "constant":
        idle["warmup_ratio"] = plan.decision("warmup_steps").because
    for name in names:
        if name in idle:
            raise ConfigError(
                f"{name} has no effect on this run, so that all runs would be the same: "
                f"{idle[name]}.",
                hint="Leave it out, or change what keeps it from having one.",
            )


def make_design(
    plan: Plan,
    names: Sequence[str],
    *,
    num_eval_tokens: int,
    budget: float = DEFAULT_BUDGET,
    num_trials: int | None = None,
    sampler: SamplerName = "local",
) -> Design:
    """The most runs, up to six (three more for each further hyperparameter), of at least ten
    updates of the largest batch each, that the budget has room for; and as long as it has room
    for. A run of the plan's own values is made beside them where a range has no place for one of
    those. Where it has room for runs of a third of that length too, and the learning rate is
    searched, which alone is moved with the length, they are four of their own or, where the
    schedule has a level trunk and that leaves the runs longer, branches of all.

    `budget` is the share of the planned run's tokens that all runs of the search may take, those
    of scoring them (`num_eval_tokens` each) included. Raises ConfigError where it is too small, and
    for a name that has no effect on the planned run.
    """
    if sampler not in get_args(SamplerName):
        known = ", ".join(get_args(SamplerName))
        raise ConfigError(f"there is no sampler {sampler}.", hint=f"These are there: {known}.")
    if not (math.isfinite(budget) and budget > 0):
        raise ConfigError(f"a budget of {budget:g} is none.", hint="Give a share, such as 30%.")
    _check_in_force(plan, names)
    settings = plan.settings()
    tokens_per_step = plan.predictions.tokens_per_step
    assert tokens_per_step is not None
    spaces = tuple(_space(plan, name) for name in names)
    longest = settings.num_train_steps
    room = _Room(
        num_updates=budget * longest,
        scoring=num_eval_tokens / tokens_per_step,
        longest=longest,
        num_references=int(any(space.start is None for space in spaces)),
        largest_batch=_largest_batch(settings, spaces),
        batch=settings.global_batch_size,
    )
    most = num_trials or NUM_TRIALS + NUM_TRIALS_MORE * (len(names) - 1)
    number = room.num_trials(most, num_trials or MIN_TRIALS)
    num_steps = room.num_steps(number)
    is_moved_with_length = "learning_rate" in names and num_steps < longest
    lengths = room.two_lengths(settings, names, number) if is_moved_with_length else None
    num_short, short_branches, num_steps = lengths or (0, False, num_steps)
    return Design(
        spaces=spaces,
        num_trials=number,
        num_steps=num_steps,
        num_short_trials=num_short,
        short_num_steps=room.whole(num_steps // SHORTER) if num_short else 0,
        short_branches=short_branches,
        run_num_steps=longest,
        run_num_tokens=round(tokens_per_step * longest),
        budget=budget,
        sampler=sampler,
        seed=settings.seed,
    )


@dataclass(frozen=True, slots=True)
class _Room:
    """A budget in updates of the planned run, which has `longest` of `batch` examples.

    scoring: what scoring one run takes. num_references: runs of the plan's own values beside the
    trials, as long as they. largest_batch: the most examples an update of a trial may take.
    """

    num_updates: float
    scoring: float
    longest: int
    num_references: int
    largest_batch: int
    batch: int

    def whole(self, num_steps: float) -> int:
        """The most updates, up to so many, whose rows are whole updates with every batch."""
        unit = self.largest_batch // math.gcd(self.batch, self.largest_batch)
        return int(num_steps) // unit * unit

    @property
    def least(self) -> int:
        """The shortest length: ten updates of the largest batch."""
        enough = math.ceil(MIN_NUM_STEPS * self.largest_batch / self.batch)
        return -self.whole(-enough)

    def num_steps(self, num_trials: int) -> int:
        """The length that there is room for in each of so many trials."""
        each = self.num_updates / (num_trials + self.num_references)
        return self.whole(min(self.longest, each - self.scoring))

    def num_trials(self, most: int, least: int) -> int:
        """As many as have room for the shortest length each. Raises ConfigError below `least`."""
        enough = min(self.least, self.whole(self.longest))
        if enough == 0:
            raise ConfigError(
                f"this run's {self.longest:,} updates are too few to take the same rows in updates "
                f"of {self.largest_batch} examples.",
                hint="Search global_batch_size from a smaller one, or for a longer run.",
            )
        for number in range(most, least - 1, -1):
            if self.num_steps(number) >= enough:
                return number
        fewest = least + self.num_references
        needed = fewest * (enough + self.scoring) / self.longest
        raise ConfigError(
            f"{self.num_updates / self.longest:.0%} of this run's {self.longest:,} updates are too "
            f"few for {fewest} runs of {enough} updates each with their scoring.",
            hint=f"Give --budget {math.ceil(100 * needed)}% or more, or hold out fewer rows.",
        )

    def two_lengths(
        self, settings: Settings, names: Sequence[str], number: int
    ) -> tuple[int, bool, int] | None:
        """How many short runs, whether they branch off, and the long length; None without room."""
        num_long = number + self.num_references
        room = self.num_updates - num_long * self.scoring
        apart = (room - NUM_SHORT_TRIALS * self.scoring) / (num_long + NUM_SHORT_TRIALS / SHORTER)
        choices = [(int(apart), False, NUM_SHORT_TRIALS)]
        if has_trunk(settings) and not BRANCHLESS & set(names):
            # A decay takes whole updates, at least one.
            decay = decay_share(settings)
            own = number * (self.scoring + math.ceil(decay))
            branched = (room - own) / (num_long + number * decay / SHORTER)
            num_steps = min(int(branched), self.longest)
            if _has_branches(settings, num_steps):
                choices.append((num_steps, True, number))
        num_steps, has_branches, num_short = max(choices)
        if self.whole(num_steps // SHORTER) < self.least:
            return None
        return num_short, has_branches, self.whole(num_steps)


def _has_branches(settings: Settings, num_steps: int) -> bool:
    """Whether a run of a third of `num_steps` parts from it at its own decay, behind its warmup."""
    warmup_steps = proxy_warmup_steps(settings.warmup_steps, num_steps)
    return warmup_steps < (1 - decay_share(settings)) * num_steps / SHORTER


def _largest_batch(settings: Settings, spaces: Sequence[Space]) -> int:
    """The most examples that an update of any run takes."""
    sizes = [space.value(space.high) for space in spaces if space.name == "global_batch_size"]
    return int(max([settings.global_batch_size, *sizes]))


def planned_value(plan: Plan, name: str) -> Any:
    """What the plan has for it; of a warmup the share of its updates, however it was decided."""
    if name != "warmup_ratio":
        return plan.decision(name).value
    settings = plan.settings()
    return rounded(settings.warmup_steps / settings.num_train_steps, 3)


def _space(plan: Plan, name: str) -> Space:
    """Around the plan's value, which has no place in it where it is 0."""
    start = float(planned_value(plan, name))
    low, high = range_around(name, start)
    return Space(name, low, high, start if start > 0 else None)
