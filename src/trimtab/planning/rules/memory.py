"""The peak memory of a weight update, by arithmetic.

    peak = base + weights + gradients + optimizer state + activations + logits

with, for micro-batches of T computed tokens and K scored positions, L layers of S input and output
features over their linear modules, hidden size H, vocabulary V, b bytes a number (4 under fp32,
else 2):

- base: interpreter, libraries, tokenised rows and the allocator's waste on a CPU, as seen in the
  resident set of short LoRA runs of a llama of 135M weights; workspaces of the kernels on CUDA.
- weights: frozen ones in the compute format, trained ones in fp32 beside a copy in the compute
  format that autocast keeps.
- gradients and optimizer state: fp32, for the trained weights alone.
- activations of a layer that keeps them: T·(b·S + h·H): inputs and outputs of its linear modules
  in the compute format, and what norms and residuals keep beyond these (h = 28 bytes where fp32
  weights are trained under fp16, so that norms go the long way; else nothing). Checked against the
  tensors that autograd saves in a llama of 30 such layers: within 2%. A layer that recomputes keeps
  its input alone, T·H. One layer's activations are added: those that the backward pass works on.
- attention keeps no [T, T] matrix: its kernels are fused.
- logits: min(K, a block's positions)·V in the compute format: they turn into their own gradient
  block by block. Under fp16, and where logits are capped or scaled, K·V in fp32 three times over:
  the logits, their log-softmax, the gradient.

Sharded over N devices (FSDP2's `fully_shard`, a group for each layer and one for the rest), a
device holds 1/N of weights, gradients and optimizer state, and beside them the whole weights of the
layer at work, of the next one and of the rest in the compute format, and the fp32 gradients of one
layer and of the rest until they are scattered; no copy of a weight outlives its layer.

`planning.memory_fit` moves these figures to where real steps put them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trimtab.hyperparameters.config import Method, Optimizer, Precision
from trimtab.planning.fact import Facts
from trimtab.planning.micro_batches import MicroBatchSize
from trimtab.planning.rules.shape import (
    num_head_weights,
    num_layer_features,
    num_linear_weights,
)

Checkpointing = Literal["off", "full"] | int

BASE_BYTES = {"cpu": 800_000_000, "cuda": 250_000_000}
LOGITS_BLOCK_ELEMENTS = 2**26
"""Logits that the loss makes at a time, where it goes block by block: 128 MiB in 16 bits."""
_COPIES_OF_WHOLE_LOGITS = 3
_LONG_NORM_BYTES_PER_HIDDEN = 28
OPTIMIZER_BYTES_PER_WEIGHT: dict[Optimizer, float] = {
    "adamw": 8,
    "adam": 8,
    "sgd": 0,
    "adafactor": 0.1,
    "muon": 4,
    "adamw_8bit": 2,
    "lion": 4,
    "adamw_schedule_free": 8,
}
"""fp32 moments; adafactor keeps sums of rows and columns, muon one momentum for matrices."""


@dataclass(frozen=True, slots=True)
class MemoryArithmetic:
    """Bytes of the parts, by which any micro-batch and checkpointing can be predicted.

    layer_bytes_per_token: one layer that keeps its activations; input_bytes_per_token: one that
    recomputes them. fixed_bytes: all that does not grow with the micro-batch. process_bytes: of
    these interpreter and libraries, or a card's workspaces. late_gradient_bytes: the gradients that
    come while activations go, which are all but the output head's.
    layer_copy_bytes, head_copy_bytes: of these the trained weights' copies in the compute format,
    of all layers and of the output head; a layer that recomputes makes its own anew.
    max_scored_at_once: positions beyond which logits no longer grow.
    """

    fixed_bytes: int
    process_bytes: int
    late_gradient_bytes: int
    layer_copy_bytes: int
    head_copy_bytes: int
    num_layers: int
    layer_bytes_per_token: float
    input_bytes_per_token: float
    logits_bytes_per_position: int
    max_scored_at_once: float

    def bytes_per_token(self, checkpointing: Checkpointing) -> float:
        """What all layers hold of one token when the backward pass begins."""
        num_recomputing = num_recomputing_layers(self.num_layers, checkpointing)
        num_keeping = self.num_layers - num_recomputing + 1
        return (
            num_keeping * self.layer_bytes_per_token + num_recomputing * self.input_bytes_per_token
        )

    def copy_bytes(self, checkpointing: Checkpointing) -> float:
        """The copies of weights that stand when the backward pass begins."""
        num_recomputing = num_recomputing_layers(self.num_layers, checkpointing)
        keeping = 1 - num_recomputing / self.num_layers
        return keeping * self.layer_copy_bytes + self.head_copy_bytes

    def peak_bytes(self, size: MicroBatchSize, checkpointing: Checkpointing) -> int:
        """The predicted peak of updates whose largest micro-batch is of `size`."""
        return self.fixed_bytes + math.ceil(
            size.num_tokens * self.bytes_per_token(checkpointing)
            + min(size.num_scored, self.max_scored_at_once) * self.logits_bytes_per_position
        )


def num_recomputing_layers(num_layers: int, checkpointing: Checkpointing) -> int:
    """`full` is every layer, k every k-th from the first on."""
    if checkpointing == "off":
        return 0
    return num_layers if checkpointing == "full" else math.ceil(num_layers / checkpointing)


def memory_arithmetic(
    facts: Facts,
    *,
    method: Method,
    precision: Precision,
    optim: Optimizer,
    num_trained: int,
    num_shards: int = 1,
) -> MemoryArithmetic:
    """Of one device, for one model, method and number of trained weights, held by `num_shards`
    devices together; see the module for the formula."""
    number_bytes = 4 if precision == "fp32" else 2
    num_parameters = facts.integer("model.num_parameters")
    num_layers = facts.integer("model.num_layers")
    hidden_size = facts.integer("model.hidden_size")
    if method == "lora":
        weights = number_bytes * num_parameters + 4 * num_trained
        layer_copies, head_copy = 2 * num_trained, 0
        residual_bytes = number_bytes
        head = 0
    else:
        weights = 4 * num_parameters
        layer_copies, head_copy = 2 * num_linear_weights(facts), 2 * num_head_weights(facts)
        residual_bytes = 4 if precision == "fp16" else number_bytes
        head = num_head_weights(facts)
    if precision == "fp32" or num_shards > 1:
        layer_copies = head_copy = 0
    gathered = 0
    if num_shards > 1:
        gathered = _gathered_bytes(facts, method, number_bytes, num_trained)
    state = math.ceil(OPTIMIZER_BYTES_PER_WEIGHT[optim] * num_trained)
    base = BASE_BYTES[facts.text("device.kind")]
    vocab_size = facts.integer("model.vocab_size")
    is_whole = precision == "fp16" or not facts.value("model.head_is_plain")
    return MemoryArithmetic(
        fixed_bytes=base
        + math.ceil((weights + 4 * num_trained + state) / num_shards)
        + gathered
        + layer_copies
        + head_copy,
        process_bytes=base,
        late_gradient_bytes=4 * (num_trained - head) // num_shards,
        layer_copy_bytes=layer_copies,
        head_copy_bytes=head_copy,
        num_layers=num_layers,
        layer_bytes_per_token=number_bytes * num_layer_features(facts)
        + _LONG_NORM_BYTES_PER_HIDDEN * hidden_size * (precision == "fp16" and method == "full"),
        input_bytes_per_token=hidden_size * residual_bytes,
        logits_bytes_per_position=vocab_size
        * (_COPIES_OF_WHOLE_LOGITS * 4 if is_whole else number_bytes),
        max_scored_at_once=math.inf if is_whole else max(1, LOGITS_BLOCK_ELEMENTS // vocab_size),
    )


def _gathered_bytes(facts: Facts, method: Method, number_bytes: int, num_trained: int) -> int:
    """What stands whole on each device of a sharded model at a time."""
    num_layers = facts.integer("model.num_layers")
    in_layer = num_linear_weights(facts) // num_layers
    rest = facts.integer("model.num_parameters") - num_linear_weights(facts)
    gradients = in_layer + rest if method == "full" else num_trained // num_layers
    return number_bytes * (2 * in_layer + rest) + 4 * gradients
