"""What the run is expected to take: memory by arithmetic, time from the timed matmul rate.

    seconds an update = operations ÷ (the device's timed rate × utilisation)

A linear weight costs two operations a position in the forward pass, two for the gradient of its
input and, where it is trained, two for its own gradient (Scaling Laws for Neural Language Models,
2020, arXiv 2001.08361); pad tokens are positions too. Recomputed layers run forward twice. The
output head works at scored positions alone; attention adds 4·H·(length ÷ 2) operations a position
and layer to the forward pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab.hyperparameters.config import Method, Precision
from trimtab.planning.fact import Facts
from trimtab.planning.plan import Predictions
from trimtab.planning.positions import Layout, Positions, positions_per_example
from trimtab.planning.rules.memory import Checkpointing, num_recomputing_layers
from trimtab.planning.rules.precision import rate_id
from trimtab.planning.rules.shape import num_linear_weights

UTILISATION = {"cpu": 0.45, "cuda": 0.35}
"""The share of the matmul rate that an update reaches, norms, softmax and the optimizer included.
CPU: the best of LoRA updates of 880 tokens on a llama of 135M weights, in bf16 (0.43) and in fp32
(0.45); smaller micro-batches reach less. CUDA: an assumption, at the low end of the 35–50% of peak
that large trainers report."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one run computes. Batch sizes are of the micro-batches, in rows."""

    method: Method
    precision: Precision
    checkpointing: Checkpointing
    num_trained_weights: int
    num_steps: int
    num_updates_per_epoch: int
    eval_steps: int
    layout: Layout
    batch_size: int
    eval_batch_size: int


def tokens_per_step(facts: Facts, num_updates_per_epoch: int) -> float:
    """Tokens of the rows in one update; what pads them is none."""
    return facts.number("rows.num_tokens") / num_updates_per_epoch


def predict(facts: Facts, work: Work, peak_memory_bytes: int) -> Predictions:
    """Times are None where the device's rate is not known."""
    num_tokens = tokens_per_step(facts, work.num_updates_per_epoch)
    if rate_id(work.precision) not in facts:
        return Predictions(work.num_steps, num_tokens, peak_memory_bytes)
    rate = facts.number(rate_id(work.precision)) * UTILISATION[facts.text("device.kind")]
    num_examples = facts.number("rows.num_examples") / work.num_updates_per_epoch
    trained = positions_per_example(facts, work.layout, work.batch_size)
    step_time_s = num_examples * training_flops(facts, work, trained) / rate
    evaluated = positions_per_example(facts, work.layout, work.eval_batch_size)
    num_eval_examples = facts.number("rows.eval_num_tokens") / facts.number("rows.length_mean")
    evaluation_time_s = num_eval_examples * forward_flops(facts, evaluated) / rate
    return Predictions(
        num_steps=work.num_steps,
        tokens_per_step=num_tokens,
        peak_memory_bytes=peak_memory_bytes,
        step_time_s=step_time_s,
        total_time_s=work.num_steps * step_time_s + num_evaluations(work) * evaluation_time_s,
    )


def num_evaluations(work: Work) -> int:
    """One before the run, one every `eval_steps`, one at the end; none where that is 0."""
    return 1 + math.ceil(work.num_steps / work.eval_steps) if work.eval_steps else 0


def forward_flops(facts: Facts, positions: Positions) -> float:
    """Operations of an example through the layers and the output head."""
    return _layer_flops(facts, positions) + _head_flops(facts, positions)


def training_flops(facts: Facts, work: Work, positions: Positions) -> float:
    """Operations of an example in forward and backward pass, recomputation included."""
    layers, head = _layer_flops(facts, positions), _head_flops(facts, positions)
    num_layers = facts.integer("model.num_layers")
    recomputed = num_recomputing_layers(num_layers, work.checkpointing) / num_layers
    if work.method == "full":
        return layers * (3 + recomputed) + 3 * head
    adapters = 2 * work.num_trained_weights * (3 + recomputed) * positions.num_computed
    return layers * (2 + recomputed) + 2 * head + adapters


def _layer_flops(facts: Facts, positions: Positions) -> float:
    length = positions.num_computed
    attention = 2 * facts.integer("model.num_layers") * facts.integer("model.hidden_size") * length
    return length * (2 * num_linear_weights(facts) + attention)


def _head_flops(facts: Facts, positions: Positions) -> float:
    sizes = facts.integer("model.hidden_size") * facts.integer("model.vocab_size")
    return 2 * positions.num_scored * sizes
