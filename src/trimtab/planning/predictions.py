"""What the run is expected to take: memory by arithmetic, time from the timed matmul rate.

    seconds an update = operations ÷ (the device's timed rate × utilisation)

A linear weight costs two operations a token in the forward pass, two for the gradient of its input
and, where it is trained, two for its own gradient (Scaling Laws for Neural Language Models, 2020,
arXiv 2001.08361). Recomputed layers run forward twice. The output head works at trained positions
alone; attention adds 4·H·(mean length ÷ 2) operations a token and layer to the forward pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trimtab.hyperparameters.config import Method, Precision
from trimtab.planning.fact import Facts
from trimtab.planning.plan import Predictions
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
    """What one run computes, per weight update."""

    method: Method
    precision: Precision
    checkpointing: Checkpointing
    num_trained_weights: int
    num_steps: int
    num_updates_per_epoch: int
    eval_steps: int


def tokens_per_step(facts: Facts, num_updates_per_epoch: int) -> float:
    return facts.number("rows.num_tokens") / num_updates_per_epoch


def predict(facts: Facts, work: Work, peak_memory_bytes: int) -> Predictions:
    """Times are None where the device's rate is not known."""
    num_tokens = tokens_per_step(facts, work.num_updates_per_epoch)
    if rate_id(work.precision) not in facts:
        return Predictions(work.num_steps, num_tokens, peak_memory_bytes)
    rate = facts.number(rate_id(work.precision)) * UTILISATION[facts.text("device.kind")]
    step_time_s = num_tokens * training_flops_per_token(facts, work) / rate
    evaluation_time_s = facts.number("rows.eval_num_tokens") * forward_flops_per_token(facts) / rate
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


def forward_flops_per_token(facts: Facts) -> float:
    """Operations of one token through the layers, and of its share of the output head."""
    return _layer_flops_per_token(facts) + _head_flops_per_token(facts)


def training_flops_per_token(facts: Facts, work: Work) -> float:
    """Operations of one token in forward and backward pass, recomputation included."""
    layers, head = _layer_flops_per_token(facts), _head_flops_per_token(facts)
    num_layers = facts.integer("model.num_layers")
    recomputed = num_recomputing_layers(num_layers, work.checkpointing) / num_layers
    if work.method == "full":
        return layers * (3 + recomputed) + 3 * head
    adapters = 2 * work.num_trained_weights * (3 + recomputed)
    return layers * (2 + recomputed) + 2 * head + adapters


def _layer_flops_per_token(facts: Facts) -> float:
    mean_length = facts.number("rows.length_mean")
    attention = 2 * facts.integer("model.num_layers") * facts.integer("model.hidden_size")
    return 2 * num_linear_weights(facts) + attention * mean_length


def _head_flops_per_token(facts: Facts) -> float:
    trained_share = facts.number("rows.num_trainable_tokens") / facts.number("rows.num_tokens")
    return (
        2 * trained_share * facts.integer("model.hidden_size") * facts.integer("model.vocab_size")
    )
