"""Several processes that train one model together: what they tell each other, and when.

Every rank runs the same loop on the same plan, and comes to the same decisions because it takes
them by numbers that all ranks share. Where replicas are trained, ranks meet at an update's end: to
learn whether memory ran out on one, to sum gradients, and to sum the loss. Where weights are in
shards they meet in every layer, so that a rank which stops in the middle stops all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store

from trimtab.errors import DoesNotFit, Interrupted
from trimtab.models.memory_errors import is_out_of_memory
from trimtab.planning.communication import SUMMED_AT_ONCE_BYTES

BUCKET_NUMBERS = SUMMED_AT_ONCE_BYTES // 4
"""Numbers that are summed over the ranks in one exchange."""
LOST_PEER = ("gloo/transport", "Connection closed by peer", "Connection reset by peer")
"""What gloo's plain RuntimeError says of a rank that is gone."""


REASON = "trimtab/reason"
WAIT_FOR_REASON = timedelta(seconds=2)
"""A rank that fails tells why before it goes; one that is killed does not."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a rank went, in its own words."""

    rank: int
    text: str
    is_memory: bool


class RanOutInAnExchange(Exception):
    """Memory ran out on this rank where others wait for it: they cannot go on together."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together; alone, it exchanges nothing.

    `shards`: each holds a part of every weight, rather than a replica. `store` is the launcher's,
    which outlives a rank.
    """

    rank: int = 0
    num_ranks: int = 1
    shards: bool = False
    store: Store | None = None

    @property
    def is_first(self) -> bool:
        """Whether this rank is the one that prints and writes."""
        return self.rank == 0

    @property
    def holds_replica(self) -> bool:
        return not (self.shards and self.num_ranks > 1)

    def sum(self, *values: float) -> tuple[float, ...]:
        """Each value's sum over all ranks, bit for bit the same on each."""
        if self.num_ranks == 1:
            return values
        exchanged = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(exchanged)
        return tuple(exchanged.tolist())

    def any(self, flag: bool) -> bool:
        """Whether it is so on some rank."""
        return self.sum(float(flag))[0] > 0

    def of_first(self, value: int) -> int:
        """The first rank's value; the others wait for it."""
        return round(self.sum(float(value) if self.is_first else 0.0)[0])

    def gathered(self, part: Tensor) -> list[Tensor]:
        """Each rank's tensor of the same shape and dtype, on the CPU, by rank."""
        if self.num_ranks == 1:
            return [part]
        parts = [torch.empty_like(part) for _ in range(self.num_ranks)]
        dist.all_gather(parts, part)
        return parts

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the ranks, in exchanges of many at a time.

        A rank without a gradient counts as zero; what no rank has a gradient of keeps none. Shards
        were summed in the backward pass. Raises RanOutInAnExchange.
        """
        if self.num_ranks == 1 or self.shards:
            return
        with _together_or_not_at_all():
            for bucket in _buckets(self._with_gradient_somewhere(parameters)):
                joined = torch.cat([gradient.reshape(-1) for gradient in bucket])
                dist.all_reduce(joined)
                summed = joined.split([gradient.numel() for gradient in bucket])
                for gradient, value in zip(bucket, summed, strict=True):
                    gradient.copy_(value.view_as(gradient))

    def _with_gradient_somewhere(self, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        counts = torch.tensor([parameter.grad is not None for parameter in parameters]).int()
        dist.all_reduce(counts)
        gradients = []
        for parameter, count in zip(parameters, counts.tolist(), strict=True):
            if count:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        return gradients

    def tell_why(self, error: BaseException) -> None:
        """Leave word of what ended this rank, for the first one; what was told before stands.

        A rank that ends because another is gone, or was asked to, has no reason of its own; a
        backend's error may be one.
        """
        has_none = is_lost_peer(error) and not isinstance(error, dist.DistBackendError)
        if self.store is None or isinstance(error, Interrupted) or has_none:
            return
        is_memory = isinstance(error, DoesNotFit | RanOutInAnExchange) or is_out_of_memory(error)
        text = f"{type(error).__name__}: {error}"
        self.store.compare_set(REASON, "", json.dumps([self.rank, text, is_memory]))

    def why_lost(self) -> Reason | None:
        """What a rank that is gone had told; None where it was killed."""
        if self.store is None:
            return None
        try:
            self.store.wait([REASON], WAIT_FOR_REASON)
        except RuntimeError:
            # Not every store wakes those who wait for what `compare_set` writes.
            if not self.store.check([REASON]):
                return None
        return Reason(*json.loads(self.store.get(REASON)))

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Where memory runs out in the block on one rank, it is told at its end on all of them.

        Raises the rank's own error, MemoryError on the other ranks; RanOutInAnExchange where the
        block holds exchanges, those of shards, in which the others already wait.
        """
        if self.num_ranks == 1:
            yield
            return
        if self.shards:
            with _together_or_not_at_all():
                yield
            return
        own: BaseException | None = None
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            own = error
        has_run_out = self.any(own is not None)
        if own is not None:
            raise own
        if has_run_out:
            raise MemoryError("memory ran out on another rank")


ALONE = Ranks()


@contextmanager
def _together_or_not_at_all() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise RanOutInAnExchange(str(error)) from None
        raise


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The gradients in their order, of one dtype and up to BUCKET_NUMBERS, or one, in each."""
    bucket: list[Tensor] = []
    held = 0
    for gradient in gradients:
        is_full = held + gradient.numel() > BUCKET_NUMBERS
        if bucket and (is_full or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(gradient)
        held += gradient.numel()
    if bucket:
        yield bucket


def is_lost_peer(error: BaseException) -> bool:
    """Whether the error says that another rank is gone, as the backends tell it."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in LOST_PEER)
    )
