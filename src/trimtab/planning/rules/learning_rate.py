"""The learning rate: a prior by method, size, optimizer and batch, held under where it diverges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

from trimtab.hyperparameters.config import Method, Optimizer
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Alternative, Decision
from trimtab.planning.fact import Facts
from trimtab.planning.rules.ruling import Ruling, decision, rounded

SMALL_MODEL_WEIGHTS = 4_000_000_000
ANCHOR_BATCH = 128
"""The batch of the sweep that the prior is taken from."""
LION_DIVISOR = 5
ADAFACTOR_RATE = {"lora": 1e-2, "full": 1e-3}
SGD_RATE = {"lora": 0.1, "full": 0.01}
RANGE_FACTS = ("rate_range.losses", "rate_range.diverging_rate")


DIVERGENCE_MARGIN = 3
"""How far under the first rate that did harm the cap lies.

A range test is a few updates without annealing: a run at the same rate takes hundreds, and what a
few survive, hundreds may not, so the edge itself is no safe rate (Understanding Short-Horizon Bias,
2018, arXiv 1803.02021). Rates are tested in steps of this same factor, so that the cap is never
over the last one that did no harm.
"""
FAR_ABOVE = 100
"""A set rate so many times the one that would be taken is warned of; a house rule."""
RANGE_STEP = 3
NUM_RANGE_RATES = 6


@dataclass(frozen=True, slots=True)
class _Prior:
    rate: float
    source: str
    scales_with_batch: bool = True


def learning_rate_prior(
    resolved: ResolvedConfig, facts: Facts, *, optim: Optimizer, examples_per_update: float
) -> float:
    """A prior from a sweep of 35 models with LoRA (Tinker cookbook), scaled to the batch.

    LoRA: 1e-3 below 4e9 weights, else 3e-4; full: a tenth (LoRA Without Regret, 2025). Scaled by
    √(examples an update ÷ 128) (2022, arXiv 2205.10287). Two significant digits.
    """
    return _scaled(_prior_of(resolved, facts, optim), examples_per_update)


def range_rates(prior: float) -> tuple[float, ...]:
    """The rates to test around a prior, rising by factors of 3 from a ninth of it.

    The first two are where a cap lies far under the prior, the next two where it lies at or just
    under it; the rest, up to 27 times the prior, find the edge that an explicit rate is held
    against.
    """
    start = prior / RANGE_STEP**2
    return tuple(rounded(start * RANGE_STEP**index, 3) for index in range(NUM_RANGE_RATES))


def decide_learning_rate(
    resolved: ResolvedConfig,
    facts: Facts,
    *,
    optim: Optimizer,
    examples_per_update: float,
) -> Ruling:
    """The user's rate, else a finished `tune`'s, else the prior, at most a third of a diverging
    rate."""
    base = _prior_of(resolved, facts, optim)
    prior = _scaled(base, examples_per_update)
    because = base.source
    if base.scales_with_batch:
        because += f" × √({examples_per_update:.4g} examples ÷ {ANCHOR_BATCH}) = {prior:g}"
    tested = _tested_range(facts)
    asked = resolved.config.learning_rate
    if asked != "auto":
        return _asked(resolved, asked, _Default.of(facts, prior, because), tested)
    if "tuned.learning_rate" in facts:
        return Ruling((_tuned(facts, prior, because),))
    if isinstance(tested, _Range):
        return Ruling((_capped(prior, because, tested),))
    untested = "the learning rate (a published prior, not range-tested on this run)"
    if tested is not None:
        untested = f"where the learning rate starts to diverge ({tested})"
    return Ruling((_untested(prior, because),), not_measured=(untested,))


@dataclass(frozen=True, slots=True)
class _Default:
    """What would be taken if the user had not set a rate."""

    rate: float
    name: str
    because: str
    facts: tuple[str, ...]

    @classmethod
    def of(cls, facts: Facts, prior: float, because: str) -> _Default:
        if "tuned.learning_rate" not in facts:
            return cls(prior, "the prior for this run", because, ("model.num_parameters",))
        tuned = _tuned(facts, prior, because)
        return cls(tuned.value, "the rate of a finished tune", tuned.because, tuned.facts)


@dataclass(frozen=True, slots=True)
class _Range:
    """Rates that were tested with the loss after each, and the first that did harm, if any did."""

    losses: tuple[tuple[float, float | None], ...]
    diverging_rate: float | None

    @property
    def highest(self) -> float:
        return self.losses[-1][0]

    def told(self) -> str:
        """`loss 1.2 after an update at 1e-4, 1.1 at 3e-4, …`."""
        (rate, loss), *others = self.losses
        return f"loss {_told_loss(loss)} after an update at {rate:g}" + "".join(
            f", {_told_loss(other_loss)} at {other_rate:g}" for other_rate, other_loss in others
        )


def _told_loss(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.4g}"


def _tested_range(facts: Facts) -> _Range | str | None:
    """What the range test of this plan found, or why it failed; None where there was none."""
    if "rate_range.key" not in facts:
        return None
    if "rate_range.failure" in facts:
        return facts.text("rate_range.failure")
    losses = cast(list[tuple[float, float | None]], facts.value("rate_range.losses"))
    diverging = facts.value("rate_range.diverging_rate")
    return _Range(
        tuple((rate, loss) for rate, loss in losses),
        None if diverging is None else facts.number("rate_range.diverging_rate"),
    )


def _asked(
    resolved: ResolvedConfig,
    asked: float,
    default: _Default,
    tested: _Range | str | None,
) -> Ruling:
    because = against = f"{asked / default.rate:.3g}× {default.name}"
    alternative = (Alternative(default.rate, default.because),)
    ids = default.facts
    warnings: tuple[str, ...] = ()
    not_measured: tuple[str, ...] = ()
    if not isinstance(tested, _Range):
        not_measured = ("where the learning rate starts to diverge on this run",)
    else:
        ids += RANGE_FACTS
        edge = tested.diverging_rate
        if edge is None:
            because += f"; no rate up to {tested.highest:g} did harm in a range test"
        else:
            because += f"; an update at {edge:g} did harm in a range test"
        if edge is not None and asked >= edge:
            warnings = (
                f"learning_rate {asked:g} is at or over {edge:g}, the first rate at which an "
                f"update on this run's rows raised the loss ({tested.told()}). A third of it, "
                f"{rounded(edge / DIVERGENCE_MARGIN):g}, is the most that auto would take.",
            )
    if not warnings and asked >= FAR_ABOVE * default.rate:
        warnings = (
            f"learning_rate {asked:g} is {against}, {default.rate:g}: updates so large ruin the "
            "weights of nearly every model.",
        )
    made = decision(
        resolved, "learning_rate", asked, "user", because, facts=ids, alternatives=alternative
    )
    return Ruling((made,), warnings, not_measured)


def _tuned(facts: Facts, prior: float, prior_because: str) -> Decision:
    """A finished search on this model, data and method is taken as it is."""
    rate = facts.number("tuned.learning_rate")
    because = "the best of a finished tune on this model, data and method"
    ids: tuple[str, ...] = ("tuned.learning_rate",)
    if "tuned.learning_rate.because" in facts:
        because += f": {facts.text('tuned.learning_rate.because')}"
        ids += ("tuned.learning_rate.because",)
    if "tuned.learning_rate.low" in facts:
        ids += ("tuned.learning_rate.low", "tuned.learning_rate.high")
        low, high = (facts.number(f"tuned.learning_rate.{end}") for end in ("low", "high"))
        because += f"; from {low:g} to {high:g} ({high / low:.2g}×) all is equal within noise"
    return Decision(
        "learning_rate",
        rate,
        "measured",
        because,
        ids,
        (Alternative(prior, f"{prior / rate:.2g}× the tuned rate; the prior: {prior_because}"),),
        limits="found at the batch and length of the tuned runs",
    )


def _capped(prior: float, prior_because: str, tested: _Range) -> Decision:
    """The prior, or a third of the first rate that did harm where that is less."""
    edge = tested.diverging_rate
    ids = ("model.num_parameters", "rows.num_rows", *RANGE_FACTS)
    limits = (
        "the range test bounds the rate from above and says nothing of the best one: it is a few "
        "updates without annealing (2018, arXiv 1803.02021); the prior is right within about 3× "
        "either way"
    )
    if edge is None:
        because = f"{prior_because}; no rate up to {tested.highest:g} did harm ({tested.told()})"
        return Decision("learning_rate", prior, "measured", because, ids, _width(prior), limits)
    cap = rounded(edge / DIVERGENCE_MARGIN)
    edge_told = f"an update at {edge:g} raised the loss ({tested.told()})"
    if cap >= prior:
        because = f"{prior_because}, under a third of {edge:g}: {edge_told}"
        return Decision("learning_rate", prior, "measured", because, ids, _width(prior), limits)
    because = (
        f"a third of {edge:g}, under the prior: {edge_told}; a third, since many updates stray "
        "further than the few of a test"
    )
    alternatives = (
        Alternative(prior, f"over a third of the diverging rate; the prior: {prior_because}"),
        Alternative(rounded(cap / 3), "further from divergence; slower"),
    )
    return Decision("learning_rate", cap, "measured", because, ids, alternatives, limits)


def _untested(prior: float, because: str) -> Decision:
    return Decision(
        "learning_rate",
        prior,
        "rule",
        because,
        ("model.num_parameters", "rows.num_rows"),
        _width(prior),
        "not range-tested on this model and data; right within about 3× either way",
    )


def _width(prior: float) -> tuple[Alternative, ...]:
    return (
        Alternative(rounded(prior / 3), "within the prior's width; slower"),
        Alternative(rounded(prior * 3), "within the prior's width; nearer to divergence"),
    )


def _prior_of(resolved: ResolvedConfig, facts: Facts, optim: Optimizer) -> _Prior:
    return _prior(resolved.config.method, facts.integer("model.num_parameters"), optim)


def _scaled(prior: _Prior, examples_per_update: float) -> float:
    factor = math.sqrt(examples_per_update / ANCHOR_BATCH) if prior.scales_with_batch else 1.0
    return rounded(prior.rate * factor)


def _prior(method: Method, num_parameters: int, optim: Optimizer) -> _Prior:
    size = f"{num_parameters / 1e9:.3g}B weights"
    lora_rate = 1e-3 if num_parameters < SMALL_MODEL_WEIGHTS else 3e-4
    adamw_rate = rounded(lora_rate if method == "lora" else lora_rate / 10)
    source = f"{adamw_rate:g} for {method} at {size} (sweep of 35 models)"
    match optim:
        case "adamw" | "adam" | "adamw_8bit":
            return _Prior(adamw_rate, source)
        case "muon":
            told = f"{source}; muon's step is scaled to AdamW's size (2025, arXiv 2502.16982)"
            return _Prior(adamw_rate, told)
        case "adamw_schedule_free":
            told = (
                f"{source}, as for AdamW; its best rate may be up to 10× (2024, arXiv 2405.15682)"
            )
            return _Prior(adamw_rate, told)
        case "lion":
            told = (
                f"{source} ÷ {LION_DIVISOR} for lion, whose authors found 3–10× less than "
                "AdamW's (2023, arXiv 2302.06675)"
            )
            return _Prior(adamw_rate / LION_DIVISOR, told)
        case "adafactor":
            told = (
                f"{ADAFACTOR_RATE[method]:g} for {method}: adafactor's rate is relative to the "
                "weights' own size; 1e-3 tuned all of T5 (2019, arXiv 1910.10683)"
            )
            return _Prior(ADAFACTOR_RATE[method], told)
        case "sgd":
            told = (
                f"{SGD_RATE[method]:g} for {method}: a place to start; no published sweep of sgd "
                "for fine-tuning is known"
            )
            return _Prior(SGD_RATE[method], told, scales_with_batch=False)
