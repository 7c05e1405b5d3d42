"""What each number format does to an update: seconds, gradient, overflow, lost updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.data.rows import MicroBatch
from trimtab.engine.precision import COMPUTE_DTYPES
from trimtab.hyperparameters.config import Precision
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.probes.bench import (
    Bench,
    finite_update,
    first_loss_scale,
    left_as_it_was,
    weights_put_back,
)
from trimtab.probes.gradient import mean_gradient

REFERENCE: Precision = "fp32"
MUCH_SLOWER = 1.25
"""A format whose first timed update takes so many times the fastest's is not timed again."""


@dataclass(frozen=True, slots=True)
class PrecisionOutcome:
    """One format's update on the rows. Gradients are compared with fp32's.

    gradient_cosine and gradient_norm_ratio are None where it overflowed.
    """

    precision: Precision
    update_s: float
    overflows: bool
    gradient_cosine: float | None
    gradient_norm_ratio: float | None


@dataclass(frozen=True, slots=True)
class LostUpdates:
    """The share of the weights that get a gradient whose first update each format would lose."""

    share: dict[Precision, float]


def precision_outcomes(
    make: Callable[[Precision], Bench], batch: MicroBatch, precisions: Sequence[Precision]
) -> Iterator[PrecisionOutcome | LostUpdates]:
    """fp32 first, then the other formats; one that the device refuses is left out.

    `make` builds what training in the format would begin with; each is let go before the next.
    """
    bench = make(REFERENCE)
    reference, seconds, shares = _reference(bench, batch, precisions)
    del bench
    yield _outcome(REFERENCE, seconds, reference, reference)
    yield LostUpdates(shares)
    fastest_s = seconds
    for precision in precisions:
        if precision == REFERENCE:
            continue
        try:
            gradient, seconds = _measured(make(precision), batch, fastest_s)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            continue
        fastest_s = min(fastest_s, seconds)
        yield _outcome(precision, seconds, gradient, reference)


def _reference(
    bench: Bench, batch: MicroBatch, precisions: Sequence[Precision]
) -> tuple[list[Tensor], float, dict[Precision, float]]:
    """The gradient, an update's seconds, and the share of updates that each format would lose.

    What is lost is seen in the first of the timed updates, which is at the settings' rate.
    """
    with left_as_it_was(bench), weights_put_back(bench) as before:
        gradient = mean_gradient(bench, batch, None)
        _, first_s = finite_update(
            bench, [batch], learning_rate=bench.settings.learning_rate, loss_scale=None
        )
        formats = list(dict.fromkeys((REFERENCE, *precisions)))
        shares = _lost_update_shares(bench, before, gradient, formats) if gradient else {}
        _, second_s = finite_update(bench, [batch], learning_rate=0.0, loss_scale=None)
    return gradient, min(first_s, second_s), shares


def _measured(bench: Bench, batch: MicroBatch, fastest_s: float) -> tuple[list[Tensor], float]:
    """The gradient, and the seconds of the fastest update."""
    with left_as_it_was(bench):
        loss_scale = first_loss_scale(bench)
        gradient = mean_gradient(bench, batch, loss_scale)
        _, seconds = finite_update(bench, [batch], learning_rate=0.0, loss_scale=loss_scale)
        if seconds < MUCH_SLOWER * fastest_s:
            _, again_s = finite_update(bench, [batch], learning_rate=0.0, loss_scale=loss_scale)
            seconds = min(seconds, again_s)
    return gradient, seconds


def _outcome(
    precision: Precision, seconds: float, gradient: Sequence[Tensor], reference: Sequence[Tensor]
) -> PrecisionOutcome:
    cosine, ratio = _compared(gradient, reference) if gradient and reference else (None, None)
    return PrecisionOutcome(precision, seconds, not gradient, cosine, ratio)


def _compared(gradient: Sequence[Tensor], reference: Sequence[Tensor]) -> tuple[float, float]:
    """Cosine and ratio of the norms, of all trainable weights together."""
    product = square = reference_square = 0.0
    for one, other in zip(gradient, reference, strict=True):
        product += float((one.double() * other.double()).sum())
        square += float(one.double().square().sum())
        reference_square += float(other.double().square().sum())
    norm, reference_norm = math.sqrt(square), math.sqrt(reference_square)
    if norm == 0 or reference_norm == 0:
        return (1.0, 1.0) if norm == reference_norm else (0.0, norm and math.inf)
    return product / (norm * reference_norm), norm / reference_norm


def _lost_update_shares(
    bench: Bench, before: Sequence[Tensor], gradient: Sequence[Tensor], formats: Sequence[Precision]
) -> dict[Precision, float]:
    """Of the weights that get a gradient, after the optimizer's first update of them."""
    lost = dict.fromkeys(formats, 0)
    num_moved = 0
    for weight, old, slope in zip(bench.optimizer.parameters, before, gradient, strict=True):
        has_gradient = slope != 0
        num_moved += int(has_gradient.sum())
        update = (weight.detach() - old).abs()[has_gradient]
        old_weights = old[has_gradient]
        for each in formats:
            spacing = unit_in_last_place(old_weights, COMPUTE_DTYPES[each])
            lost[each] += int((update < spacing / 2).sum())
    return {each: number / num_moved if num_moved else 0.0 for each, number in lost.items()}


def unit_in_last_place(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance from each weight to the next larger number of the format."""
    limits = torch.finfo(dtype)
    _, exponent = torch.frexp(weights)
    # frexp's mantissa lies in [0.5, 1); subnormal numbers all stand one smallest step apart.
    spacing = torch.ldexp(torch.full_like(weights, limits.eps / 2), exponent)
    return spacing.clamp(min=limits.tiny * limits.eps).where(
        weights != 0, torch.full_like(weights, limits.tiny * limits.eps)
    )
