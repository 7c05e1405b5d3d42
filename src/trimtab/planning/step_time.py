"""Seconds of a weight update on devices that are known by their rates alone.

    update = k·(forward + backward) + optimizer,  each pass = max(compute, communication)
    compute = operations ÷ (MATMUL_SHARE · matmul rate) + bytes moved ÷ memory bandwidth

for k alike micro-batches on each device.

- operations: those of `planning.timing`. Attention's run at half the rate of the others, since
  kernels that leave half of the square out keep the matrix units half as busy (in llm-foundry's
  tables the share of peak by which the whole square counts hardly moves with the length).
- bytes moved: inputs and outputs of the layers' linear modules, norms in fp32 and fp32 logits
  thrice, TRAFFIC times over in each pass; and the weights of the layers once a pass.
- sharded over N devices, the weights are gathered in each pass in the compute format, and the
  gradients of what is trained scattered in fp32, in every micro-batch (FSDP2's defaults). They run
  while the neighbouring layer computes, so that a pass takes the longer of the two; the first
  layer's gathering and the last one's scattering have nothing to run beside.
- copies of the model reduce their gradients once an update: after its last backward pass, as
  `train` does, or beside it where they are copies of shards.
- optimizer: its weights and moments move once, at the memory's bandwidth.

MATMUL_SHARE and TRAFFIC are fitted to half of the published rows of docs/scale.md, which is scored
on the other half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from trimtab.planning.communication import SUMMED_AT_ONCE_BYTES, Fabric, Ring
from trimtab.planning.fact import Facts
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.rules.memory import (
    Checkpointing,
    MemoryArithmetic,
    num_recomputing_layers,
)
from trimtab.planning.rules.shape import num_layer_features, num_linear_weights
from trimtab.planning.timing import (
    OPTIMIZER_TRAFFIC_BYTES,
    SECONDS_PER_LAYER,
    TimeFit,
    Work,
)

MATMUL_SHARE = 0.85
TRAFFIC = 3.5
NORM_BYTES = {"fp32": 8, "fp16": 18, "bf16": 18}
"""A feature of the hidden state, of a layer's two norms."""
LOGITS_BYTES = 12
ATTENTION_SHARE = 0.5
BACKWARD_PASSES = 2
"""Of a forward pass's time: gradients of inputs, and of weights."""


@dataclass(frozen=True, slots=True)
class Split:
    """`num_shards` devices hold one copy of what is trained; 1 is a copy on each."""

    num_devices: int
    num_shards: int = 1

    @property
    def num_copies(self) -> int:
        return self.num_devices // self.num_shards


@dataclass(frozen=True, slots=True)
class Rates:
    """flops_per_s: of the best matrix products. memory_bytes_per_s: None where it is not known."""

    flops_per_s: float
    memory_bytes_per_s: float
    fabric: Fabric


@dataclass(frozen=True, slots=True)
class StepTerms:
    """Seconds of one update by their cause; what communication hides behind computing is no loss.

    waiting_s: communication that nothing runs beside, of communication_s.
    """

    arithmetic_s: float
    memory_s: float
    communication_s: float
    waiting_s: float
    optimizer_s: float

    @property
    def update_s(self) -> float:
        return self.arithmetic_s + self.memory_s + self.waiting_s + self.optimizer_s


@dataclass(frozen=True, slots=True)
class PredictedTime:
    """The formula of the module for one model, recipe and split."""

    work: Work
    memory: MemoryArithmetic
    rates: Rates
    split: Split

    @property
    def fits(self) -> Mapping[Checkpointing, TimeFit]:
        """None: nothing was timed."""
        return {}

    def update_s(
        self, mean: MicroBatchSize, num_micro_batches: float, checkpointing: Checkpointing
    ) -> float:
        return self.terms(mean, num_micro_batches, checkpointing).update_s

    def terms(
        self, mean: MicroBatchSize, num_micro_batches: float, checkpointing: Checkpointing
    ) -> StepTerms:
        """Of an update of so many micro-batches on each device, whose mean size is `mean`."""
        recomputed = num_recomputing_layers(self.work.num_layers, checkpointing)
        passes = 1 + BACKWARD_PASSES + recomputed / self.work.num_layers
        arithmetic_s = self._arithmetic_s(mean, checkpointing, passes)
        memory_s = self._memory_s(mean, passes)
        computing_s = arithmetic_s + memory_s
        gather_s, scatter_s = self._gather_s, self._scatter_s
        backward_s = computing_s * (passes - 1) / passes
        waiting_s = (
            max(0.0, gather_s - computing_s / passes)
            + max(0.0, gather_s + scatter_s - backward_s)
            + (gather_s + scatter_s) / self.work.num_layers
        )
        reduce_s = reducing_s = self._reduce_s
        if self.split.num_shards > 1:
            reducing_s = max(reduce_s - backward_s, reduce_s / self.work.num_layers)
        k = num_micro_batches
        return StepTerms(
            arithmetic_s=k * arithmetic_s,
            memory_s=k * memory_s,
            communication_s=k * (2 * gather_s + scatter_s) + reduce_s,
            waiting_s=k * waiting_s + reducing_s,
            optimizer_s=self._optimizer_s,
        )

    def forward_s(self, size: MicroBatchSize, num_micro_batches: float) -> float:
        """Seconds of so many forward passes, as an evaluation makes them."""
        flops = self.work.forward_flops(size) + self._slow_flops(size, 1.0)
        computing_s = self._seconds(flops) + self._memory_s(size, 1.0)
        return num_micro_batches * max(computing_s, self._gather_s)

    def _arithmetic_s(
        self, size: MicroBatchSize, checkpointing: Checkpointing, passes: float
    ) -> float:
        """No less than it takes to start the kernels."""
        flops = self.work.training_flops(size, checkpointing) + self._slow_flops(size, passes)
        kind = self.work.facts.text("device.kind")
        starting_s = SECONDS_PER_LAYER[kind] * self.work.num_layers
        return max(self._seconds(flops), starting_s)

    def _slow_flops(self, size: MicroBatchSize, passes: float) -> float:
        """What attention's operations take beyond others, as operations."""
        return (1 / ATTENTION_SHARE - 1) * passes * self.work.attention_flops(size)

    def _seconds(self, flops: float) -> float:
        return flops / (MATMUL_SHARE * self.rates.flops_per_s)

    def _memory_s(self, size: MicroBatchSize, passes: float) -> float:
        facts = self.work.facts
        features = self._number_bytes * num_layer_features(facts)
        norms = NORM_BYTES[self.work.precision] * facts.integer("model.hidden_size")
        layers = size.num_tokens * self.work.num_layers * (features + norms)
        logits = size.num_scored * LOGITS_BYTES * facts.integer("model.vocab_size")
        weights = self._number_bytes * num_linear_weights(facts)
        moved = TRAFFIC * (passes * layers + min(passes, 3) * logits) + passes * weights
        return moved / self.rates.memory_bytes_per_s

    @property
    def _number_bytes(self) -> int:
        return 4 if self.work.precision == "fp32" else 2

    @property
    def _num_calls(self) -> int:
        return self.work.num_layers + 1

    @property
    def _shard_ring(self) -> Ring:
        return Ring(self.rates.fabric, self.split.num_shards)

    @property
    def _gather_s(self) -> float:
        weights = self._number_bytes * self.work.facts.integer("model.num_parameters")
        return self._shard_ring.all_gather_s(weights, self._num_calls)

    @property
    def _scatter_s(self) -> float:
        return self._shard_ring.reduce_scatter_s(4 * self.work.num_trained, self._num_calls)

    @property
    def _reduce_s(self) -> float:
        split = self.split
        ring = Ring(self.rates.fabric, split.num_copies, stride=split.num_shards)
        summed = 4 * self.work.num_trained / split.num_shards
        is_sharded = split.num_shards > 1
        num_calls = self._num_calls if is_sharded else ceil(summed / SUMMED_AT_ONCE_BYTES)
        return ring.all_reduce_s(summed, num_calls)

    @property
    def _optimizer_s(self) -> float:
        moved = OPTIMIZER_TRAFFIC_BYTES * self.work.num_trained / self.split.num_shards
        return moved / self.rates.memory_bytes_per_s


def datasheet_rates(facts: Facts, work: Work) -> Rates:
    """Of a device that is known by its datasheet, in the format that is computed in.

    A format that it does not have natively is computed at fp32's rate.
    """
    peak_id = f"datasheet.flops_per_s.{work.precision}"
    if peak_id not in facts:
        peak_id = "datasheet.flops_per_s.fp32"
    return Rates(
        flops_per_s=facts.number(peak_id) * facts.number("datasheet.matmul_share"),
        memory_bytes_per_s=facts.number("datasheet.memory_bytes_per_s"),
        fabric=Fabric(
            devices_per_node=facts.integer("datasheet.devices_per_node"),
            intra_node_bytes_per_s=facts.number("datasheet.intra_node_bytes_per_s"),
            inter_node_bytes_per_s=facts.number("datasheet.inter_node_bytes_per_s"),
        ),
    )
