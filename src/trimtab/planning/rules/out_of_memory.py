"""What to say where a run's memory ran out in its smallest recipe: what would need less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from trimtab.hyperparameters.units import format_bytes
from trimtab.planning.fact import Facts
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.rules.choice import MEMORY_MARGIN
from trimtab.planning.rules.lora import AUTO_R
from trimtab.planning.rules.memory import memory_arithmetic
from trimtab.planning.rules.not_fitting import MIN_LENGTH, share_longer
from trimtab.planning.rules.shape import linear_modules, num_adapter_weights, targeted
from trimtab.planning.settings import Settings

SMALLER_MODEL: Final = "Take a smaller model, or a device with more memory."


def what_needs_less(settings: Settings, facts: Facts, failed: MicroBatchSize) -> str:
    """The nearest settings that need less than an update with the `failed` micro-batch.

    `settings` are those in force. Each way with its memory, by arithmetic and not by measurement,
    beside that of what failed, and with the share of rows that it would cut. What saves less than
    the error of the arithmetic is not offered.
    """
    now = _peak_bytes(settings, facts, failed)
    ways = [
        f"{told} ({format_bytes(peak)}{cost})"
        for told, peak, cost in _ways(settings, facts, failed)
        if peak * (1 + MEMORY_MARGIN) <= now
    ]
    if not ways:
        return SMALLER_MODEL
    return (
        f"By arithmetic the update needs {format_bytes(now)}. Less would need: "
        f"{'; '.join(ways)}; a smaller model."
    )


def _ways(
    settings: Settings, facts: Facts, failed: MicroBatchSize
) -> Iterator[tuple[str, int, str]]:
    """What to set, the peak that it has, and what else it costs."""
    length = _half(failed.num_tokens)
    if length >= MIN_LENGTH:
        shorter = failed.times(length / failed.num_tokens)
        cost = f", cuts {share_longer(facts, length)} of the rows"
        yield f"max_length: {length}", _peak_bytes(settings, facts, shorter), cost
    if settings.precision == "fp32" and facts.value("device.native.bf16"):
        bf16 = replace(settings, precision="bf16")
        yield "precision: bf16", _peak_bytes(bf16, facts, failed), ""
    if settings.method == "full":
        lora = replace(settings, method="lora", lora_r=AUTO_R, target_modules="all-linear")
        yield "method: lora", _peak_bytes(lora, facts, failed), ""


def _half(num_tokens: float) -> int:
    """The largest power of two below this many tokens, 0 where there is none."""
    return 1 << (int(num_tokens) - 1).bit_length() - 1 if num_tokens > 1 else 0


def _peak_bytes(settings: Settings, facts: Facts, size: MicroBatchSize) -> int:
    num_trained = facts.integer("model.num_parameters")
    if settings.method == "lora":
        modules = targeted(linear_modules(facts), settings.target_modules)
        num_trained = num_adapter_weights(modules, settings.lora_r)
    arithmetic = memory_arithmetic(
        facts,
        method=settings.method,
        precision=settings.precision,
        optim=settings.optim,
        num_trained=num_trained,
        num_shards=settings.num_ranks if settings.parallelism == "shard" else 1,
    )
    return arithmetic.peak_bytes(size, settings.activation_checkpointing)
