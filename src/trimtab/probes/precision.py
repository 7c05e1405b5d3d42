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
NUM_TIMED_UPDATES = 2


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
    reference, outcome = _measured(bench, batch, None)
    lost = LostUpdates(_lost_update_shares(bench, batch, precisions))
    del bench
    yield outcome
    yield lost
    for precision in precisions:
        if precision == REFERENCE:
            continue
        try:
            _, outcome = _measured(make(precision), batch, reference)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            continue
        yield outcome


def _measured(
    bench: Bench, batch: MicroBatch, reference: Sequence[Tensor] | None
) -> tuple[list[Tensor], PrecisionOutcome]:
    """The gradient, and how it compares with the reference; with itself where that is None."""
    with left_as_it_was(bench):
        loss_scale = first_loss_scale(bench)
        gradient = mean_gradient(bench, batch, loss_scale)
        seconds = [
            finite_update(bench, [batch], learning_rate=0.0, loss_scale=loss_scale)[1]
            for _ in range(NUM_TIMED_UPDATES)
        ]
    compared = gradient if reference is None else reference
    cosine, ratio = _compared(gradient, compared) if gradient and compared else (None, None)
    precision = bench.settings.precision
    return gradient, PrecisionOutcome(precision, min(seconds), not gradient, cosine, ratio)


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
    bench: Bench, batch: MicroBatch, precisions: Sequence[Precision]
) -> dict[Precision, float]:
    """Takes the optimizer's first update at the settings' rate, and puts the weights back."""
    formats = list(dict.fromkeys((REFERENCE, *precisions)))
    lost = dict.fromkeys(formats, 0)
    num_moved = 0
    with left_as_it_was(bench), weights_put_back(bench) as before:
        gradient = mean_gradient(bench, batch, None)
        if not gradient:
            return {}
        finite_update(bench, [batch], learning_rate=bench.settings.learning_rate, loss_scale=None)
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
