from __future__ import annotations

import pytest

from trimtab.planning.communication import Fabric, Ring

FABRIC = Fabric(8, intra_node_bytes_per_s=400e9, inter_node_bytes_per_s=25e9, share=1.0)


def test_one_rank_sends_nothing() -> None:
    assert Ring(FABRIC, 1).all_gather_s(1e9, num_calls=10) == 0


def test_within_a_node_each_rank_receives_what_it_has_not() -> None:
    # 3/4 of 4 GB at 400 GB/s.
    assert Ring(FABRIC, 4).all_gather_s(4e9, num_calls=0) == pytest.approx(3e9 / 400e9)


def test_a_reduction_on_all_is_a_scattering_and_a_gathering() -> None:
    ring = Ring(FABRIC, 16)
    parts = ring.reduce_scatter_s(1e9, 3) + ring.all_gather_s(1e9, 3)
    assert ring.all_reduce_s(1e9, 3) == pytest.approx(parts)


def test_across_nodes_all_devices_of_a_node_share_the_crossing() -> None:
    # Eight devices of 25 GB/s each bring 200 GB/s.
    assert Ring(FABRIC, 16).all_gather_s(16e9, 0) == pytest.approx(15e9 / 200e9)


def test_strided_ranks_have_their_own_links_alone() -> None:
    # One device of each of four nodes.
    assert Ring(FABRIC, 4, stride=8).all_gather_s(4e9, 0) == pytest.approx(3e9 / 25e9)
    # Two of each of four nodes.
    assert Ring(FABRIC, 8, stride=4).all_gather_s(8e9, 0) == pytest.approx(7e9 / 50e9)


def test_every_call_takes_its_hops() -> None:
    small = Ring(FABRIC, 512)
    assert small.all_gather_s(0, 2) == pytest.approx(2 * small.all_gather_s(0, 1))
    assert small.all_gather_s(0, 1) > Ring(FABRIC, 64).all_gather_s(0, 1)


def test_hops_are_those_of_the_fabric() -> None:
    slow = Fabric(8, 400e9, 25e9, share=1.0, intra_hop_s=1e-4, inter_hop_s=1e-3)
    assert Ring(slow, 8).all_gather_s(0, 2) == pytest.approx(2 * 7e-4)
    assert Ring(slow, 16).all_gather_s(0, 1) == pytest.approx(2 * 1e-3 + 13e-4)
