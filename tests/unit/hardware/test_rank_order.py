"""Groups of any rank order against mixed-radix enumeration of all ranks, and by hand."""

from collections import Counter
from itertools import permutations, product
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.hardware.groups import Group, Spread, rails_used, spread
from moesim.hardware.rank_order import Degrees, joined, parallel_groups, strides
from moesim.hardware.topology import Tier, Topology

ORDERS = ["-".join(names) for names in permutations(("tp", "cp", "ep", "dp", "pp"))]
MEMBERS = {"tp": ("tp",), "cp": ("cp",), "dp": ("dp",), "dp_cp": ("cp", "dp"), "pp": ("pp",)}
OF_EXPERTS = {"etp": ("tp",), "ep": ("ep",), "etp_ep": ("tp", "ep"), "edp": ("dp",)}
FEW = st.sampled_from([1, 2, 3, 4])


def enumerated(sizes: dict[str, int], order: str, parts: tuple[str, ...]) -> list[list[int]]:
    """All groups over the dimensions in `parts`: ranks that differ in nothing else."""
    names = order.split("-")
    found: dict[tuple[int, ...], list[int]] = {}
    places = product(*(range(sizes[name]) for name in reversed(names)))
    for rank, place in enumerate(places):  # the last of `reversed(names)` is the fastest
        at = dict(zip(reversed(names), place, strict=True))
        found.setdefault(tuple(at[name] for name in names if name not in parts), []).append(rank)
    return sorted(found.values())


def worst(groups: list[list[int]], block: int) -> Spread:
    counts = [Counter(rank // block for rank in group) for group in groups]
    return Spread(max(len(one) for one in counts), min(min(one.values()) for one in counts))


@settings(max_examples=150)
@given(order=st.sampled_from(ORDERS), tp=FEW, cp=FEW, dp=FEW, pp=FEW, fold=st.integers(0, 3),
       block=st.sampled_from([2, 3, 4, 8, 12]))  # fmt: skip
def test_groups_of_every_order(
    order: str, tp: int, cp: int, dp: int, pp: int, fold: int, block: int
) -> None:
    ep, etp = ((tp * cp, 1), (cp * dp, tp), (dp, tp * cp), (tp, 1))[fold]
    degrees = Degrees(tp=tp, cp=cp, dp=dp, pp=pp, ep=ep, etp=etp)
    found = parallel_groups(degrees, order)
    for sizes, named in ((degrees.dense, MEMBERS), (degrees.experts, OF_EXPERTS)):
        devices = prod(sizes.values())
        for name, parts in named.items():
            groups = enumerated(sizes, order, parts)
            assert found[name].size == len(groups[0]), name
            assert spread(found[name], devices, block) == worst(groups, block), name


@given(order=st.sampled_from(ORDERS), cp=FEW, dp=FEW, pp=FEW, rails=st.sampled_from([1, 2, 4, 8]))
def test_rails_of_a_group_of_two_dimensions(
    order: str, cp: int, dp: int, pp: int, rails: int
) -> None:
    degrees = Degrees(tp=2, cp=cp, dp=dp, pp=pp)
    devices = 2 * cp * dp * pp
    tier = Tier(name="scale_up", kind="switch", domain_size=8, bandwidth_bytes_per_s=1.0,
                pair_bandwidth_bytes_per_s=1.0, latency_s=0.0)  # fmt: skip
    topology = Topology(devices=devices, devices_per_node=8, scale_up=tier, scale_out=None,
                        rails=rails)  # fmt: skip
    group = parallel_groups(degrees, order)["dp_cp"]
    if not group.run:
        return
    used = [len({rank % 8 // (8 // rails) for rank in members})
            for members in enumerated(degrees.dense, order, ("cp", "dp"))]  # fmt: skip
    assert rails_used(group, topology) == max(used)


def test_pipeline_before_data_by_hand() -> None:
    """tp 2, cp 2, pp 4, dp 4 on nodes of 8: stages are 4 ranks apart, replicas 16.

    A pipeline then lies on 2 nodes, two stages on each; with dp first on 4, one on each.
    """
    degrees = Degrees(tp=2, cp=2, dp=4, pp=4)
    usual, mapped = parallel_groups(degrees), parallel_groups(degrees, "tp-cp-ep-pp-dp")
    assert (usual["pp"], mapped["pp"]) == (Group(4, 16), Group(4, 4))
    assert (usual["dp"], mapped["dp"]) == (Group(4, 4), Group(4, 16))
    assert spread(mapped["pp"], 64, 8) == Spread(2, 2)
    assert spread(usual["pp"], 64, 8) == Spread(4, 1)
    # gradients: ranks 0, 2 of each replica, replicas 16 apart: 4 nodes with 2 members each
    assert mapped["dp_cp"] == Group(8, 2, run=2, apart=16)
    assert spread(mapped["dp_cp"], 64, 8) == Spread(4, 2)
    assert usual["dp_cp"] == Group(8, 2)
    assert spread(usual["dp_cp"], 64, 8) == Spread(2, 4)


def test_folded_experts_by_hand() -> None:
    """tp 4, etp 1, ep 8 on 16 ranks of a stage: experts' neighbours are neighbours, replicas 8."""
    found = parallel_groups(Degrees(tp=4, dp=4, pp=2, ep=8, etp=1))
    assert (found["ep"], found["edp"], found["pp"]) == (Group(8, 1), Group(2, 8), Group(2, 16))
    assert strides({"tp": 4, "cp": 1, "ep": 1, "dp": 4, "pp": 2})["pp"] == 16


def test_axes_that_follow_each_other_are_one() -> None:
    assert joined((2, 1), (4, 2)) == Group(8, 1)
    assert joined((4, 2), (2, 1)) == Group(8, 1)
    assert joined((1, 4), (3, 8)) == Group(3, 8)
    assert joined((1, 4), (1, 8)) == Group(1, 4)
    with pytest.raises(ValueError, match="no multiple"):
        parallel_groups(Degrees(tp=2, ep=3))
