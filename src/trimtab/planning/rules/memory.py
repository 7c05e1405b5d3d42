"""The peak memory of a weight update, by arithmetic.

    peak = base + weights + gradients + optimizer state + activations + logits

with, for R rows of at most T tokens and K trained positions each, L layers of S input and output
features over their linear modules, hidden size H, vocabulary V, b bytes a number (4 under fp32,
else 2):

- base: interpreter, libraries, tokenised rows and the allocator's waste on a CPU, as seen in the
  resident set of short LoRA runs of a llama of 135M weights; workspaces of the kernels on CUDA.
- weights: frozen ones in the compute format, trained ones in fp32 beside a copy in the compute
  format that autocast keeps.
- gradients and optimizer state: fp32, for the trained weights alone.
- activations of a layer that keeps them: R·T·(b·S + h·H): inputs and outputs of its linear modules
  in the compute format, and what norms and residuals keep (h = 8 bytes under fp32, 18 in half
  precision, where norms compute in fp32). Fitted to the tensors that autograd saves in a llama of
  30 such layers, within 3% there. A layer that recomputes keeps its input alone, R·T·H. One layer's
  activations are added: those that the backward pass works on.
- attention keeps no [T, T] matrix: its kernels are fused.
- logits: R·K·V in fp32 three times over: the logits, their log-softmax, the gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trimtab.hyperparameters.config import Method, Optimizer, Padding, Precision
from trimtab.planning.fact import Facts
from trimtab.planning.rules.shape import linear_modules, num_head_weights, num_linear_weights

Checkpointing = Literal["off", "full"] | int

BASE_BYTES = {"cpu": 800_000_000, "cuda": 250_000_000}
LOGIT_COPIES = 3
_NORM_BYTES_PER_HIDDEN = {"fp32": 8, "fp16": 18, "bf16": 18}
_OPTIMIZER_BYTES_PER_WEIGHT: dict[Optimizer, float] = {
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
class MemoryModel:
    """Bytes of the parts, by which any micro-batch and checkpointing can be predicted.

    layer_bytes_per_row: one layer that keeps its activations; input_bytes_per_row: one that
    recomputes them.
    """

    fixed_bytes: int
    num_layers: int
    layer_bytes_per_row: int
    input_bytes_per_row: int
    logits_bytes_per_row: int

    def peak_bytes(self, batch_size: int, checkpointing: Checkpointing) -> int:
        """The predicted peak of one update whose micro-batches have `batch_size` rows."""
        num_recomputing = num_recomputing_layers(self.num_layers, checkpointing)
        per_row = (
            (self.num_layers - num_recomputing + 1) * self.layer_bytes_per_row
            + num_recomputing * self.input_bytes_per_row
            + self.logits_bytes_per_row
        )
        return self.fixed_bytes + batch_size * per_row


@dataclass(frozen=True, slots=True)
class RowShape:
    """The most tokens that a row of a micro-batch may have, and the positions it is scored at."""

    num_tokens: int
    num_scored_positions: int


def num_recomputing_layers(num_layers: int, checkpointing: Checkpointing) -> int:
    """`full` is every layer, k every k-th from the first on."""
    if checkpointing == "off":
        return 0
    return num_layers if checkpointing == "full" else math.ceil(num_layers / checkpointing)


def row_shape(
    facts: Facts,
    *,
    packing: bool,
    padding: Padding,
    max_length: int,
    pad_to_multiple_of: int | None,
) -> RowShape:
    """The largest row: a full packed one, a padded one, or the longest example."""
    longest = facts.integer("rows.length_max")
    if packing:
        # Packed rows mix examples, so the share of trained tokens is near the data's own.
        share = facts.number("rows.num_trainable_tokens") / facts.number("rows.num_tokens")
        scored = max(facts.integer("rows.trainable_length_max"), math.ceil(share * max_length))
        return RowShape(max_length, min(scored, max_length))
    if padding == "none":
        return RowShape(longest, facts.integer("rows.trainable_length_max"))
    length = max_length if padding == "max_length" else longest
    if pad_to_multiple_of is not None:
        length = math.ceil(length / pad_to_multiple_of) * pad_to_multiple_of
    # Padded rows are scored at each column that any of them trains on: nearly all of the longest.
    return RowShape(length, longest)


def memory_model(
    facts: Facts,
    *,
    method: Method,
    precision: Precision,
    optim: Optimizer,
    num_trained_weights: int,
    row: RowShape,
) -> MemoryModel:
    """The prediction for one model, method and row shape; see the module for the formula."""
    number_bytes = 4 if precision == "fp32" else 2
    num_parameters = facts.integer("model.num_parameters")
    num_layers = facts.integer("model.num_layers")
    hidden_size = facts.integer("model.hidden_size")
    if method == "lora":
        weights = number_bytes * num_parameters + 4 * num_trained_weights
        compute_copy = 0 if precision == "fp32" else 2 * num_trained_weights
        residual_bytes = number_bytes
    else:
        weights = 4 * num_parameters
        compute_copy = (
            0 if precision == "fp32" else 2 * (num_linear_weights(facts) + num_head_weights(facts))
        )
        residual_bytes = 4
    gradients = 4 * num_trained_weights
    state = math.ceil(_OPTIMIZER_BYTES_PER_WEIGHT[optim] * num_trained_weights)
    features = sum(module.num_features for module in linear_modules(facts)) / num_layers
    layer_bytes_per_token = (
        number_bytes * features + _NORM_BYTES_PER_HIDDEN[precision] * hidden_size
    )
    return MemoryModel(
        fixed_bytes=BASE_BYTES[facts.text("device.kind")]
        + weights
        + compute_copy
        + gradients
        + state,
        num_layers=num_layers,
        layer_bytes_per_row=math.ceil(row.num_tokens * layer_bytes_per_token),
        input_bytes_per_row=row.num_tokens * hidden_size * residual_bytes,
        logits_bytes_per_row=LOGIT_COPIES
        * 4
        * row.num_scored_positions
        * facts.integer("model.vocab_size"),
    )
