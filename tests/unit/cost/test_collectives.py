"""Seconds of collectives, by hand: rings, trees, two tiers, exchanges."""

import pytest

from moesim.cost.collectives import (
    collective_s,
    exchange_s,
    gather_s,
    network,
    send_s,
    tree_all_reduce_s,
    uniform_all_to_all_s,
)
from moesim.cost.layout import Layout, networks
from moesim.hardware.groups import Group
from moesim.hardware.profiles import load_accelerator, load_cluster
from moesim.hardware.topology import Topology, cluster
from moesim.model.operators import CollectiveKind
from tests.unit.cost.machines import IDEAL, net


def _dgx(devices: int) -> Topology:
    spec = load_cluster("dgx-h100")
    return cluster(spec, load_accelerator(spec.accelerator), devices).topology


def test_ring_in_one_domain() -> None:
    # 4 ranks gather 400 bytes: each receives 300 at 100 bytes/s, in 3 steps of 0.5 s
    assert gather_s(400.0, net(1, 4)) == pytest.approx(3.0)
    assert gather_s(400.0, net(1, 4, scale_up_latency_s=0.5)) == pytest.approx(4.5)


def test_all_reduce_is_scatter_and_gather() -> None:
    # ring: 2 * 3 s; tree: 2 * 400 / 100 = 8 s; without latency the ring wins
    assert collective_s("all_reduce", 400.0, net(1, 4)) == pytest.approx(6.0)
    # 10 s per step: ring 6 + 2 * 3 * 10, tree 8 + 2 * log2(4) * 10 = 48
    assert collective_s("all_reduce", 400.0, net(1, 4, scale_up_latency_s=10.0)) == pytest.approx(
        48.0
    )


def test_tree_by_hand() -> None:
    # two domains of four: inside 100 bytes/s of 400 bytes, between 10 bytes/s of 400 / 4
    assert tree_all_reduce_s(400.0, net(2, 4)) == pytest.approx(2 * 10.0)
    latency = {"scale_up_latency_s": 1.0, "scale_out_latency_s": 5.0}
    assert tree_all_reduce_s(400.0, net(2, 4, **latency)) == pytest.approx(20 + 2 * (2 + 5))


def test_two_tiers() -> None:
    """Two domains of four gather 800 bytes.

    Inside: each rank receives 7/8 of all at least, the two-tier ring 3/4 of it in its domain:
    600 bytes at 100. Between: each of the four rails carries (1/2) * 800 / 4 = 100 bytes at 10.
    """
    assert gather_s(800.0, net(2, 4)) == pytest.approx(10.0)
    assert gather_s(800.0, net(2, 4, scale_out_bytes_per_s=100.0)) == pytest.approx(6.0)
    latency = {"scale_up_latency_s": 1.0, "scale_out_latency_s": 5.0}
    assert gather_s(800.0, net(2, 4, **latency)) == pytest.approx(10 + 3 * 1 + 1 * 5)


def test_ranks_in_domains_of_their_own() -> None:
    # four ranks, none in one domain with another: a ring over scale-out, 3/4 of 400 at 10
    assert gather_s(400.0, net(4, 1)) == pytest.approx(30.0)


def test_exchange_by_hand() -> None:
    # eight ranks in two domains spread 800 bytes each: 3/8 stay inside, 4/8 leave
    assert uniform_all_to_all_s(800.0, net(2, 4)) == pytest.approx(400 / 10)
    assert uniform_all_to_all_s(800.0, net(1, 8)) == pytest.approx(700 / 100)
    assert uniform_all_to_all_s(800.0, net(8, 1)) == pytest.approx(700 / 10)
    assert exchange_s(300.0, 0.0, net(1, 8, scale_up_latency_s=0.25)) == pytest.approx(3.25)
    assert exchange_s(300.0, 10.0, net(2, 4)) == pytest.approx(3.0)  # both at once


def test_uniform_exchange_against_counting_bytes() -> None:
    """Each rank sends P / n to every other; the fullest sender decides."""
    for domains, members in ((1, 8), (2, 4), (4, 2), (8, 1), (3, 5)):
        n = domains * members
        near = sum(8.0 / n for peer in range(1, members) if peer)
        away = sum(8.0 / n for peer in range(n) if peer // members)
        expected_s = max(near / 100, away / 10)
        assert uniform_all_to_all_s(8.0, net(domains, members)) == pytest.approx(expected_s)


def test_sending_to_a_neighbour() -> None:
    assert send_s(50.0, net(1, 4)) == pytest.approx(0.5)
    assert send_s(50.0, net(2, 2, scale_out_latency_s=1.0)) == pytest.approx(6.0)
    assert send_s(50.0, net(1, 4, link_bytes_per_s=5.0)) == pytest.approx(10.0)


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
def test_one_rank_or_no_bytes_cost_nothing(kind: CollectiveKind) -> None:
    alone = net(1, 1, scale_up_latency_s=1.0)
    assert collective_s(kind, 1e9, alone) == 0.0
    assert collective_s(kind, 0.0, net(2, 4, scale_out_latency_s=1.0)) == 0.0


def test_no_collective_beats_its_lower_bound() -> None:
    """All-gather: every rank receives (n - 1) / n of all; all-reduce twice that (Thakur 2005)."""
    for domains, members in ((1, 2), (1, 8), (2, 4), (8, 1), (4, 8)):
        here = net(domains, members)
        n, best = domains * members, 100.0 if domains == 1 else 110.0
        assert gather_s(1e6, here) >= (n - 1) / n * 1e6 / best
        assert collective_s("all_reduce", 1e6, here) >= 2 * (n - 1) / n * 1e6 / best


def test_groups_of_a_layout_on_dgx_h100() -> None:
    """tp 8 fills a node at 450 GB/s; dp has one member per node, on 50 GB/s each."""
    layout = Layout(
        tp=8, pp=1, vpp=1, cp=1, ep=4, etp=8, dp=4, sequence_parallel=True, schedule="1f1b",
        dispatcher="alltoall",
    )  # fmt: skip
    found = networks(layout, _dgx(32), IDEAL)
    tp, dp, ep = found["tp"], found["dp"], found["ep"]
    assert (tp.domains, tp.members, tp.scale_up_bytes_per_s) == (1, 8, 450e9)
    assert (dp.domains, dp.members, dp.scale_out_bytes_per_s) == (4, 1, 50e9)
    assert (ep.domains, ep.members) == (4, 1)
    # an all-reduce of 1 GB over four nodes: 2 * 3/4 GB at 50 GB/s, and six steps of 5 us
    found_s = collective_s("all_reduce", 1e9, dp)
    assert found_s == pytest.approx(0.03 + 6 * 5e-6, rel=1e-9)


def test_nccl_on_four_nodes_of_eight() -> None:
    """4 GiB all-reduce on 4 nodes of 8: measured 22.05 ms on B200 with 8 x 400 Gb/s and 900 GB/s.

    Two tiers by hand: inside 2 * 7/8 * 4 GiB / 900 GB/s = 8.4 ms; between
    2 * 3/4 * 4 GiB / 8 / 50 GB/s = 16.1 ms at full rate, 20.1 ms at 0.8 of it.
    """
    here = net(4, 8, scale_up_bytes_per_s=900e9, scale_out_bytes_per_s=0.8 * 50e9)
    assert collective_s("all_reduce", 4 * 2**30, here) == pytest.approx(20.13e-3, rel=1e-3)


def _slices(devices: int) -> Topology:
    """TPU v5e: four links of 45 GB/s; up to 16 x 16 chips in a slice, 1 us per hop."""
    spec = load_cluster("tpu-v5e-pod")
    return cluster(spec, load_accelerator(spec.accelerator), devices).topology


def test_a_group_that_is_no_box_of_a_torus_has_one_link() -> None:
    """24 chips are a slice of 4 x 6, its axes open, numbered row by row.

    Of four chips in turn the second four are the last two of a row and the first two of the next:
    no box. Such a group gathers three quarters of 1.2 GB at 45 GB/s, in three steps.
    """
    apart = network(Group(4, 1), _slices(24), IDEAL)
    assert apart.axes is None
    assert gather_s(1.2e9, apart) == pytest.approx(0.9 / 45 + 3e-6)
    assert collective_s("all_reduce", 1.2e9, apart) == pytest.approx(2 * (0.9 / 45 + 3e-6))
    # six are a row, a line of its own at one link's rate, and all 24 have both axes
    row, whole = network(Group(6, 1), _slices(24), IDEAL), network(Group(24, 1), _slices(24), IDEAL)
    assert gather_s(1.2e9, row) == pytest.approx(1.0 / 45 + 5e-6)
    assert gather_s(2.4e9, whole) == pytest.approx(2.3 / 90 + (5 + 3) * 1e-6)


def test_no_tree_on_a_torus() -> None:
    # 1 kB: a tree would take 2 * 2 hops of 1 us; rings along 4 and 6 take 2 * (3 + 5)
    whole = network(Group(24, 1), _slices(24), IDEAL)
    assert collective_s("all_reduce", 1e3, whole) >= 16e-6


def test_no_tree_on_a_torus_either_where_the_group_is_no_box() -> None:
    # 1 kB: a tree takes 2 * 2 hops of 1 us, a ring of four 2 * 3
    apart = network(Group(4, 1), _slices(24), IDEAL)
    assert collective_s("all_reduce", 1e3, apart) >= 6e-6


def test_a_group_over_whole_slices_has_all_links_inside() -> None:
    """512 chips are two slices of 16 x 16 rings; each chip gathers over its four links.

    10.24 GB: 255 of 256 parts at 180 GB/s, and half of 40 MB per chip at 25 / 8 GB/s meanwhile;
    15 hops along each axis, 20 us to the other slice.
    """
    both = network(Group(512, 1), _slices(512), IDEAL)
    inside_s = 255 / 256 * 10.24 / 180
    assert inside_s > 0.02 / (25 / 8)
    assert gather_s(10.24e9, both) == pytest.approx(inside_s, rel=0.01)


def test_a_group_that_shares_a_domain_uses_no_scale_out() -> None:
    here = network(Group(4, 2), _dgx(64), IDEAL)
    assert (here.domains, here.members, here.scale_out_bytes_per_s) == (1, 4, 0.0)
    away = network(Group(4, 4), _dgx(64), IDEAL)
    assert (away.domains, away.members, away.scale_out_bytes_per_s) == (2, 2, 50e9)


def test_broadcast_is_a_pipelined_ring_by_hand() -> None:
    """600 bytes: 6 s at 100 bytes/s; over 2 rails at 10 bytes/s 30 s; and a latency per step."""
    assert collective_s("broadcast", 600.0, net(1, 4)) == pytest.approx(6.0)
    assert collective_s("broadcast", 600.0, net(3, 1)) == pytest.approx(60.0)
    assert collective_s("broadcast", 600.0, net(3, 2)) == pytest.approx(30.0)
    slow = net(3, 2, scale_up_latency_s=1.0, scale_out_latency_s=5.0)
    assert collective_s("broadcast", 600.0, slow) == pytest.approx(30.0 + 1.0 + 2 * 5.0)
