"""Rank groups against enumeration of all ranks."""

from collections import Counter
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.hardware.groups import (
    Group,
    Spread,
    domain_spread,
    domains,
    leaf_spread,
    rails_used,
    scale_out_bandwidth_bytes_per_s,
    spans_scale_out,
    spread,
    torus_axes,
    uses_spine,
)
from moesim.hardware.profiles import load_machines
from moesim.hardware.rank_order import Degrees
from moesim.hardware.rank_order import parallel_groups as ordered_groups
from moesim.hardware.topology import Tier, Topology, cluster

SMALL = st.integers(1, 6)


def parallel_groups(**degrees: int) -> dict[str, Group]:
    return ordered_groups(Degrees(**degrees))


def _members(group: Group, devices: int) -> list[list[int]]:
    """Every group of its kind: the ranks that tile `devices`."""
    span = group.size * group.stride
    return [
        [tile * span + offset + i * group.stride for i in range(group.size)]
        for tile in range(devices // span)
        for offset in range(group.stride)
    ]


def _topology(
    devices: int, domain: int, *, node: int = 8, leaf: int | None = None, rails: int | None = None
) -> Topology:
    up = Tier(
        name="scale_up",
        kind="switch",
        domain_size=domain,
        bandwidth_bytes_per_s=450e9,
        pair_bandwidth_bytes_per_s=450e9,
        latency_s=1e-6,
    )
    out = Tier(
        name="scale_out",
        kind="fabric",
        domain_size=devices,
        bandwidth_bytes_per_s=50e9,
        pair_bandwidth_bytes_per_s=50e9,
        latency_s=5e-6,
    )
    return Topology(
        devices=devices,
        devices_per_node=node,
        scale_up=up,
        scale_out=out,
        oversubscription=4.0 if leaf else 1.0,
        leaf_devices=leaf,
        rails=rails,
    )


@given(size=SMALL, stride=SMALL, tiles=SMALL, block=st.integers(1, 40))
def test_spread_of_any_group(size: int, stride: int, tiles: int, block: int) -> None:
    devices = size * stride * tiles
    counts = [
        Counter(rank // block for rank in members)
        for members in _members(Group(size, stride), devices)
    ]
    expected = Spread(max(len(c) for c in counts), min(min(c.values()) for c in counts))
    assert spread(Group(size, stride), devices, block) == expected


@given(
    dense=st.tuples(
        st.sampled_from([1, 2, 4, 8]), st.integers(1, 3), st.sampled_from([1, 2, 4, 6])
    ),
    pp=SMALL,
    expert=st.sampled_from([(1, 1), (2, 1), (4, 2), (8, 1), (1, 2)]),
    domain=st.sampled_from([4, 8, 12, 72]),
)
def test_parallel_groups_on_domains(
    dense: tuple[int, int, int], pp: int, expert: tuple[int, int], domain: int
) -> None:
    tp, cp, dp = dense
    ep, etp = expert
    devices = tp * cp * dp * pp
    if tp * cp * dp % (ep * etp):
        return
    topology = _topology(devices, domain)
    for name, group in parallel_groups(tp=tp, cp=cp, dp=dp, pp=pp, ep=ep, etp=etp).items():
        counts = [Counter(r // domain for r in members) for members in _members(group, devices)]
        assert domains(group, topology) == max(len(c) for c in counts), name
        fewest = min(min(c.values()) for c in counts)
        assert domain_spread(group, topology).members == fewest, name
        assert spans_scale_out(group, topology) == any(len(c) > 1 for c in counts), name


@given(dense=st.tuples(SMALL, SMALL, SMALL), pp=SMALL, ep=SMALL, etp=SMALL)
def test_groups_are_megatrons(dense: tuple[int, int, int], pp: int, ep: int, etp: int) -> None:
    """Ranks in mixed radix, fastest first: tp, cp, dp, pp and etp, ep, edp, pp."""
    tp, cp, dp = dense
    if tp * cp * dp % (etp * ep):
        with pytest.raises(ValueError, match="no multiple of etp"):
            parallel_groups(tp=tp, cp=cp, dp=dp, pp=pp, ep=ep, etp=etp)
        return
    groups = parallel_groups(tp=tp, cp=cp, dp=dp, pp=pp, ep=ep, etp=etp)
    edp = tp * cp * dp // (etp * ep)
    assert groups["edp"].size == edp
    for sizes, names in (((tp, cp, dp, pp), "tp cp dp pp"), ((etp, ep, edp, pp), "etp ep edp pp")):
        assert prod(sizes) == tp * cp * dp * pp
        for axis, name in enumerate(names.split()):
            rest: dict[tuple[int, ...], list[int]] = {}
            for rank in range(prod(sizes)):
                place, left = [], rank
                for length in sizes:
                    left, digit = divmod(left, length)
                    place.append(digit)
                rest.setdefault((*place[:axis], *place[axis + 1 :]), []).append(rank)
            assert sorted(rest.values()) == sorted(_members(groups[name], prod(sizes))), name


@given(size=SMALL, stride=SMALL, tiles=SMALL, rails=st.sampled_from([1, 2, 4, 8]))
def test_rails_of_any_group(size: int, stride: int, tiles: int, rails: int) -> None:
    topology = _topology(size * stride * tiles, 8, leaf=16, rails=rails)
    used = [
        len({rank % 8 // (8 // rails) for rank in members})
        for tile in range(8)  # a base may lie anywhere in a node
        for members in [[tile + i * stride for i in range(size)]]
        if tile < stride
    ]
    assert rails_used(Group(size, stride), topology) == max(used)


def test_a_group_larger_than_the_cluster() -> None:
    with pytest.raises(ValueError, match="needs 64 devices"):
        spread(Group(16, 4), 32, 8)


def test_expert_groups_across_nodes_of_eight() -> None:
    # DeepSeek-V3 training: ep 64 over 8 nodes of 8 GPUs, pp 16 over 2048 GPUs.
    topology = _topology(2048, 8)
    groups = parallel_groups(dp=128, pp=16, ep=64)
    assert domain_spread(groups["ep"], topology) == Spread(8, 8)
    assert domain_spread(groups["edp"], topology) == Spread(2, 1)
    assert domain_spread(groups["pp"], topology) == Spread(16, 1)


def test_a_group_that_straddles_racks() -> None:
    # Ranks 64..127 on racks of 72: eight members in rack 0 and 56 in rack 1.
    topology = _topology(144, 72, node=4)
    assert domain_spread(Group(64, 1), topology) == Spread(2, 8)


def test_oversubscription_counts_between_leaves_and_between_rails() -> None:
    topology = _topology(512, 8, leaf=256, rails=8)
    inside, across = Group(32, 8), Group(64, 8)
    assert leaf_spread(inside, topology) == Spread(1, 32)
    assert not uses_spine(inside, topology)
    assert scale_out_bandwidth_bytes_per_s(inside, topology) == pytest.approx(50e9)
    assert leaf_spread(across, topology) == Spread(2, 32)
    assert scale_out_bandwidth_bytes_per_s(across, topology) == pytest.approx(12.5e9)
    # Sixteen neighbours sit on eight rails, and a rail's leaf switch serves one rail only.
    assert rails_used(Group(16, 1), topology) == 8
    assert uses_spine(Group(16, 1), topology)
    assert not uses_spine(Group(8, 1), topology)


def test_no_network_between_domains() -> None:
    topology = cluster(*load_machines("l40s-pcie-8"), 8).topology
    with pytest.raises(ValueError, match="no scale_out network"):
        scale_out_bandwidth_bytes_per_s(Group(8, 1), topology)


def test_torus_axes_of_groups() -> None:
    topology = cluster(*load_machines("tpu-v5e-pod"), 512).topology
    ring = torus_axes(Group(16, 1), topology)
    assert ring is not None
    assert [(axis.length, axis.ring) for axis in ring] == [(16, True)]
    assert torus_axes(Group(2, 256), topology) is None
    assert torus_axes(Group(8, 1), _topology(8, 8)) is None
