"""Seconds of a weight update: o + k·(f + operations ÷ rate) for k alike micro-batches.

o is the optimizer's own time, f what a micro-batch costs whatever its size, and the rate what the
device reaches on this model. Arithmetic expects them; trials of real updates put them right, one
rate for each checkpointing that was tried.

A linear weight costs two operations a position in the forward pass, two for the gradient of its
input and, where it is trained, two for its own gradient (Scaling Laws for Neural Language Models,
2020, arXiv 2001.08361); pad tokens are positions too. Recomputed layers run forward twice. The
output head works at scored positions alone; attention adds 2·H·length² operations a document and
layer to the forward pass, half of the square being masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from trimtab.hyperparameters.config import Method, Precision
from trimtab.planning.fact import Facts
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.regression import Correction, Prior, solve
from trimtab.planning.rules.memory import Checkpointing, num_recomputing_layers
from trimtab.planning.rules.precision import rate_id
from trimtab.planning.rules.shape import num_head_weights, num_linear_weights
from trimtab.planning.trials import Point, by_checkpointing, measured_points

UTILISATION = {"cpu": 0.45, "cuda": 0.35}
"""The share of the matmul rate that an update reaches, norms, softmax and the optimizer included.
CPU: the best of LoRA updates of 880 tokens on a llama of 135M weights, in bf16 (0.43) and in fp32
(0.45); smaller micro-batches reach less. CUDA: an assumption, at the low end of the 35–50% of peak
that large trainers report."""
RELATIVE_NOISE = 0.03
SECONDS_PER_LAYER = {"cpu": 1e-3, "cuda": 5e-4}
"""What starting a layer's kernels costs in a forward and backward pass, whatever their size."""
OPTIMIZER_TRAFFIC_BYTES = 28
"""Adam reads weight, gradient and two moments, and writes three of them back, in fp32."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is computed for a token: the model's sizes are the facts', the rest is decided."""

    facts: Facts
    method: Method
    precision: Precision
    num_trained: int

    @property
    def num_layers(self) -> int:
        return self.facts.integer("model.num_layers")

    def forward_flops(self, size: MicroBatchSize) -> float:
        """Operations of the layers and the output head."""
        return self._layer_flops(size) + self._head_flops(size)

    def training_flops(self, size: MicroBatchSize, checkpointing: Checkpointing) -> float:
        """Operations of forward and backward pass, recomputation included."""
        layers, head = self._layer_flops(size), self._head_flops(size)
        recomputed = num_recomputing_layers(self.num_layers, checkpointing) / self.num_layers
        if self.method == "full":
            return layers * (3 + recomputed) + 3 * head
        adapters = 2 * self.num_trained * (3 + recomputed) * size.num_tokens
        return layers * (2 + recomputed) + 2 * head + adapters

    def attention_flops(self, size: MicroBatchSize) -> float:
        """Of these, those of the forward pass between positions."""
        hidden_size = self.facts.integer("model.hidden_size")
        return 2 * self.num_layers * hidden_size * size.sum_length_squared

    def _layer_flops(self, size: MicroBatchSize) -> float:
        linear = 2 * num_linear_weights(self.facts) * size.num_tokens
        return linear + self.attention_flops(size)

    def _head_flops(self, size: MicroBatchSize) -> float:
        return 2 * size.num_scored * num_head_weights(self.facts)


@dataclass(frozen=True, slots=True)
class TimeFit:
    """coefficients: seconds an update, a micro-batch, an operation. The correction is a share of a
    micro-batch's seconds, by its tokens."""

    coefficients: tuple[float, float, float]
    correction: Correction


class TimeModel(Protocol):
    """Seconds of updates; `fits` has what was fitted to timed ones, by checkpointing."""

    @property
    def fits(self) -> Mapping[Checkpointing, TimeFit]: ...

    def update_s(
        self, mean: MicroBatchSize, num_micro_batches: float, checkpointing: Checkpointing
    ) -> float: ...

    def forward_s(self, size: MicroBatchSize, num_micro_batches: float) -> float: ...


@dataclass(frozen=True, slots=True)
class UpdateTime:
    """`expected` are the coefficients by arithmetic; `fits` those of each checkpointing tried."""

    work: Work
    expected: tuple[float, float, float]
    fits: Mapping[Checkpointing, TimeFit]

    def update_s(
        self, mean: MicroBatchSize, num_micro_batches: float, checkpointing: Checkpointing
    ) -> float:
        """Seconds of an update of so many micro-batches whose mean size is `mean`."""
        per_update, per_micro_batch, per_flop = self._coefficients(checkpointing)
        flops = self.work.training_flops(mean, checkpointing)
        micro_batch_s = per_micro_batch + per_flop * flops
        if checkpointing in self.fits:
            micro_batch_s *= 1 + self.fits[checkpointing].correction.at(mean.num_tokens)
        return per_update + num_micro_batches * micro_batch_s

    def forward_s(self, size: MicroBatchSize, num_micro_batches: float) -> float:
        """Seconds of so many forward passes, as an evaluation makes them."""
        _, per_micro_batch, per_flop = self._coefficients("off")
        # A forward pass starts about a third of the kernels of both passes.
        starting = per_micro_batch / 3
        return num_micro_batches * (starting + per_flop * self.work.forward_flops(size))

    def _coefficients(self, checkpointing: Checkpointing) -> tuple[float, float, float]:
        """Those of the checkpointing, else of one that was tried, else arithmetic's."""
        if checkpointing in self.fits:
            return self.fits[checkpointing].coefficients
        return next((each.coefficients for each in self.fits.values()), self.expected)


def update_time(facts: Facts, work: Work) -> UpdateTime | None:
    """From the trials where there are any, else from the device's timed rate; None without both."""
    grouped = by_checkpointing(measured_points(facts))
    kind = facts.text("device.kind")
    if rate_id(work.precision) not in facts:
        return None
    seconds_per_flop = 1 / (facts.number(rate_id(work.precision)) * UTILISATION[kind])
    starting_s = SECONDS_PER_LAYER[kind] * work.num_layers
    optimizer_s = _optimizer_s(facts, work)
    priors = (
        Prior(optimizer_s, optimizer_s + 5 * starting_s),
        Prior(starting_s, 5 * starting_s),
        Prior(seconds_per_flop, seconds_per_flop),
    )
    return UpdateTime(
        work=work,
        expected=(optimizer_s, starting_s, seconds_per_flop),
        fits={
            checkpointing: _fit(points, work, priors) for checkpointing, points in grouped.items()
        },
    )


def _optimizer_s(facts: Facts, work: Work) -> float:
    if "device.memory_bandwidth_bytes_per_s" not in facts:
        return 0.0
    bandwidth = facts.number("device.memory_bandwidth_bytes_per_s")
    return OPTIMIZER_TRAFFIC_BYTES * work.num_trained / bandwidth


def _fit(points: list[Point], work: Work, priors: tuple[Prior, ...]) -> TimeFit:
    numbers = [point.trial.num_micro_batches for point in points]
    features = [
        (1.0, float(number), number * work.training_flops(point.size, point.checkpointing))
        for point, number in zip(points, numbers, strict=True)
    ]
    seconds = [_usual_s(point.update_s) for point in points]
    a, b, c = _no_less_than_nothing(features, seconds, priors)
    if b == c == 0:
        # So noisy that more work seemed to take no longer: the slope is what is expected.
        a, b, c = (prior.mean for prior in priors)
    shares = []
    for measured, (_, number, flops) in zip(seconds, features, strict=True):
        micro_batches_s = number * b + flops * c
        shares.append((measured - a - micro_batches_s) / micro_batches_s)
    return TimeFit(
        coefficients=(a, b, c),
        correction=Correction.of([point.size.num_tokens for point in points], shares),
    )


def _no_less_than_nothing(
    features: list[tuple[float, float, float]], seconds: list[float], priors: tuple[Prior, ...]
) -> tuple[float, float, float]:
    """A line through points that rise ever more steeply would start below 0, and make the smallest
    micro-batch, which was not tried, the fastest; what would be less than nothing is held at it."""
    for _ in priors:
        found = solve(features, seconds, priors, relative_noise=RELATIVE_NOISE)
        if min(found) >= 0:
            break
        priors = tuple(
            Prior(0.0, 1e-12) if value < 0 else prior
            for value, prior in zip(found, priors, strict=True)
        )
    a, b, c = (max(0.0, value) for value in found)
    return a, b, c


def _usual_s(update_s: tuple[float, ...]) -> float:
    """The quickest: a first update also warms caches, and any may wait for other processes."""
    return min(update_s)
