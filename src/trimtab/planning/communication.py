"""Seconds of collectives between devices.

A ring of n ranks passes (n − 1)/n of the data through each device once for an all-gather or a
reduce-scatter, and twice for an all-reduce, which is one of each (Patarasuk and Yuan, Bandwidth
optimal all-reduce algorithms, 2009). The slowest link of the ring decides: where it crosses nodes,
each of the node's devices in it brings its own share of the network.
"""

from __future__ import annotations

from dataclasses import dataclass

LINK_SHARE = 0.8
"""Of a link's rate, what large collectives reach: an assumption, near what is reported of them."""
INTRA_HOP_S = 1e-6
INTER_HOP_S = 5e-6
"""What a step from one rank to the next takes whatever its size; both are assumptions."""
SUMMED_AT_ONCE_BYTES = 32 * 2**20
"""Of gradients, in one exchange, where replicas sum them."""


@dataclass(frozen=True, slots=True)
class Fabric:
    """Bytes a second of one device in one direction, within its node and out of it.

    share: of these, what collectives reach. The hops are seconds of a step to the next rank.
    """

    devices_per_node: int
    intra_node_bytes_per_s: float
    inter_node_bytes_per_s: float
    share: float = LINK_SHARE
    intra_hop_s: float = INTRA_HOP_S
    inter_hop_s: float = INTER_HOP_S


@dataclass(frozen=True, slots=True)
class Ring:
    """`num_ranks` devices of which `stride` lie between each and the next: 1 for neighbours."""

    fabric: Fabric
    num_ranks: int
    stride: int = 1

    def all_gather_s(self, num_bytes: float, num_calls: int = 1) -> float:
        """Of `num_bytes` in all, gathered by each rank in so many calls."""
        if self.num_ranks == 1:
            return 0.0
        moved = num_bytes * (self.num_ranks - 1) / self.num_ranks
        return moved / self._bytes_per_s + num_calls * self._hops_s

    def reduce_scatter_s(self, num_bytes: float, num_calls: int = 1) -> float:
        return self.all_gather_s(num_bytes, num_calls)

    def all_reduce_s(self, num_bytes: float, num_calls: int = 1) -> float:
        return 2 * self.all_gather_s(num_bytes, num_calls)

    @property
    def _members_per_node(self) -> int:
        return max(1, min(self.num_ranks, self.fabric.devices_per_node // self.stride))

    @property
    def _bytes_per_s(self) -> float:
        fabric = self.fabric
        rate = fabric.intra_node_bytes_per_s
        if self.num_ranks > self._members_per_node:
            rate = min(rate, self._members_per_node * fabric.inter_node_bytes_per_s)
        return fabric.share * rate

    @property
    def _hops_s(self) -> float:
        num_nodes = -(-self.num_ranks // self._members_per_node)
        num_crossings = num_nodes if num_nodes > 1 else 0
        num_inner = self.num_ranks - 1 - num_crossings
        return num_crossings * self.fabric.inter_hop_s + num_inner * self.fabric.intra_hop_s
