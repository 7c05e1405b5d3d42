"""Floating-point operations of training, from a model's sizes; plain arithmetic on integers.

A weight of a linear map costs two operations a token in the forward pass, two for the gradient of
its input and two for its own gradient (Scaling Laws for Neural Language Models, 2020, arXiv
2001.08361). Attention scores are left out: they are the smaller part while rows are shorter than
about six hidden sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.hyperparameters.config import Method

FORWARD = 2
INPUT_GRADIENT = 2
WEIGHT_GRADIENT = 2


@dataclass(frozen=True, slots=True)
class WeightCounts:
    """Weights that multiply activations.

    num_body: all but embedding and head. num_head: the output head, whether tied or not.
    num_adapter: LoRA's, 0 without.
    """

    num_body: int
    num_head: int
    num_adapter: int = 0


def weight_counts(
    *,
    num_parameters: int,
    num_embedding_parameters: int,
    hidden_size: int,
    vocab_size: int,
    head_is_tied: bool,
    num_adapter_parameters: int = 0,
) -> WeightCounts:
    """The counts from a model's description. A tied head is work, though no weight of its own."""
    num_head = hidden_size * vocab_size
    num_own = num_parameters - num_embedding_parameters - (0 if head_is_tied else num_head)
    return WeightCounts(num_own, num_head, num_adapter_parameters)


def lora_parameters(linear_modules: list[tuple[str, int, int, int]], r: int) -> int:
    """Adapter weights of rank `r` beside all of these (suffix, in, out, count)."""
    return sum(r * (fan_in + fan_out) * count for _, fan_in, fan_out, count in linear_modules)


def training_flops_per_token(
    counts: WeightCounts,
    method: Method,
    *,
    trainable_share: float = 1.0,
    share_recomputed: float = 0.0,
) -> float:
    """Operations a token of forward and backward pass.

    `trainable_share` is the share of tokens that are trained on: only they reach the head.
    `share_recomputed` is the share of layers under activation checkpointing. Full fine-tuning
    takes the gradient of every weight; LoRA passes gradients through frozen ones and takes those
    of its adapters alone.
    """
    through = FORWARD + INPUT_GRADIENT
    learnt = through + WEIGHT_GRADIENT
    frozen = learnt if method == "full" else through
    body = counts.num_body * (frozen + FORWARD * share_recomputed)
    adapters = counts.num_adapter * (learnt + FORWARD * share_recomputed)
    return body + adapters + counts.num_head * frozen * trainable_share
