"""Gradients of a run's first updates and of their micro-batches, before anything is learnt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from trimtab.data.rows import MicroBatch
from trimtab.engine.precision import LossScale
from trimtab.errors import GuardStop
from trimtab.planning.noise import MicroBatchNorms
from trimtab.probes.bench import Bench, first_loss_scale, left_as_it_was
from trimtab.probes.gradient import mean_gradient


def micro_batch_norms(
    bench: Bench, updates: Iterable[Sequence[MicroBatch]]
) -> Iterator[MicroBatchNorms]:
    """The gradient norms of each update, which is not applied, and of each of its micro-batches.

    Raises GuardStop where a gradient is not finite at any loss scale.
    """
    with left_as_it_was(bench):
        loss_scale = first_loss_scale(bench)
        for micro_batches in updates:
            yield _norms(bench, micro_batches, loss_scale)


def _norms(
    bench: Bench, micro_batches: Sequence[MicroBatch], loss_scale: LossScale | None
) -> MicroBatchNorms:
    num_trainable_tokens = sum(batch.num_trainable_tokens for batch in micro_batches)
    shares = [batch.num_trainable_tokens / num_trainable_tokens for batch in micro_batches]
    whole = [torch.zeros_like(parameter) for parameter in bench.optimizer.parameters]
    norms = []
    for batch, share in zip(micro_batches, shares, strict=True):
        gradient = mean_gradient(bench, batch, loss_scale)
        if not gradient:
            raise GuardStop(
                f"a gradient at the base weights is not finite in {bench.settings.precision}."
            )
        norms.append(_norm(gradient))
        torch._foreach_add_(whole, gradient, alpha=share)
    return MicroBatchNorms(
        num_examples=sum(len(batch.row_ids) for batch in micro_batches),
        shares=shares,
        norms=norms,
        norm=_norm(whole),
    )


def _norm(gradient: Sequence[Tensor]) -> float:
    return float(nn.utils.get_total_norm(gradient))
