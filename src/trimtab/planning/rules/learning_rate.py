"""The learning rate's prior, by method, size, optimizer and batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab.hyperparameters.config import Method, Optimizer
from trimtab.hyperparameters.layers import ResolvedConfig
from trimtab.planning.decision import Alternative
from trimtab.planning.fact import Facts
from trimtab.planning.rules.ruling import Ruling, decision, rounded

SMALL_MODEL_WEIGHTS = 4_000_000_000
ANCHOR_BATCH = 128
"""The batch of the sweep that the prior is taken from."""
LION_DIVISOR = 5
ADAFACTOR_RATE = {"lora": 1e-2, "full": 1e-3}
SGD_RATE = {"lora": 0.1, "full": 0.01}


@dataclass(frozen=True, slots=True)
class _Prior:
    rate: float
    source: str
    scales_with_batch: bool = True


def decide_learning_rate(
    resolved: ResolvedConfig, facts: Facts, *, optim: Optimizer, examples_per_update: float
) -> Ruling:
    """A prior from a sweep of 35 models with LoRA (Tinker cookbook), scaled to the batch.

    LoRA: 1e-3 below 4e9 weights, else 3e-4; full: a tenth (LoRA Without Regret, 2025). Scaled by
    √(examples an update ÷ 128) (2022, arXiv 2205.10287). Two significant digits.
    """
    num_parameters = facts.integer("model.num_parameters")
    prior = _prior(resolved.config.method, num_parameters, optim)
    factor = math.sqrt(examples_per_update / ANCHOR_BATCH) if prior.scales_with_batch else 1.0
    rate = rounded(prior.rate * factor)
    scaling = (
        f" × √({examples_per_update:.4g} examples ÷ {ANCHOR_BATCH}) = {rate:g}"
        if prior.scales_with_batch
        else ""
    )
    because = f"{prior.source}{scaling}"
    asked = resolved.config.learning_rate
    if asked != "auto":
        made = decision(
            resolved,
            "learning_rate",
            asked,
            "user",
            f"{asked / rate:.2g}× the prior for this run",
            facts=("model.num_parameters",),
            alternatives=(Alternative(rate, because),),
        )
        return Ruling(
            (made,), not_measured=("where the learning rate starts to diverge on this run",)
        )
    made = decision(
        resolved,
        "learning_rate",
        rate,
        "rule",
        because,
        facts=("model.num_parameters", "rows.num_rows"),
        alternatives=(
            Alternative(rounded(rate / 3), "within the prior's width; slower"),
            Alternative(rounded(rate * 3), "within the prior's width; nearer to divergence"),
        ),
        limits="not range-tested on this model and data; right within about 3× either way",
    )
    return Ruling(
        (made,),
        not_measured=("the learning rate (a published prior, not range-tested on this run)",),
    )


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
