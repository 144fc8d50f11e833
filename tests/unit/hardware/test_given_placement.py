"""Ranks on given devices: another rank order written out as a placement, and by hand."""

from itertools import permutations, product
from math import prod

from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.hardware.groups import Group, Spread, domain_spread, rails_used, torus_axes
from moesim.hardware.rank_order import Degrees, parallel_groups
from moesim.hardware.topology import Tier, Topology
from moesim.hardware.torus import Torus, TorusAxis

ORDERS = ["-".join(names) for names in permutations(("tp", "cp", "ep", "dp", "pp"))]
FEW = st.sampled_from([1, 2, 3, 4])


def on(devices: int, domain: int, placement: tuple[int, ...], **more: object) -> Topology:
    tier = Tier(name="scale_up", kind="switch", domain_size=domain, bandwidth_bytes_per_s=1.0,
                pair_bandwidth_bytes_per_s=1.0, latency_s=0.0)  # fmt: skip
    known = {"devices_per_node": domain, "rails": domain, "scale_out": None, **more}
    return Topology(devices=devices, scale_up=tier, placement=placement, **known)  # type: ignore[arg-type]


def numbered(sizes: dict[str, int], order: str) -> dict[tuple[int, ...], int]:
    """The rank at each place (tp, cp, ep, dp, pp) of the layout."""
    slowest_first = list(reversed(order.split("-")))
    names = list(sizes)
    found = {}
    for rank, place in enumerate(product(*(range(sizes[name]) for name in slowest_first))):
        at = dict(zip(slowest_first, place, strict=True))
        found[tuple(at[name] for name in names)] = rank
    return found


@settings(max_examples=100)
@given(one=st.sampled_from(ORDERS), other=st.sampled_from(ORDERS), tp=FEW, cp=FEW, dp=FEW, pp=FEW,
       domain=st.sampled_from([2, 4, 8]))  # fmt: skip
def test_a_placement_that_says_another_order_is_that_order(
    one: str, other: str, tp: int, cp: int, dp: int, pp: int, domain: int
) -> None:
    degrees = Degrees(tp=tp, cp=cp, dp=dp, pp=pp)
    devices = prod(degrees.dense.values())
    here, there = numbered(degrees.dense, one), numbered(degrees.dense, other)
    devices_of = {rank: there[place] for place, rank in here.items()}
    placed = on(devices, domain, tuple(devices_of[rank] for rank in range(devices)))
    plain = on(devices, domain, ())
    ours, theirs = parallel_groups(degrees, one), parallel_groups(degrees, other)
    for name in ("tp", "cp", "dp", "dp_cp", "pp"):
        assert domain_spread(ours[name], placed) == domain_spread(theirs[name], plain), name
        if devices % domain == 0 and devices > domain:
            assert rails_used(ours[name], placed) == rails_used(theirs[name], plain), name


def test_neighbours_put_on_two_nodes_by_hand() -> None:
    """Ranks 0, 1 of a pair on devices 0 and 4; nodes of 4, in blocks of 8 that repeat."""
    spread_out = (0, 4, 1, 5, 2, 6, 3, 7)
    assert domain_spread(Group(2, 1), on(16, 4, spread_out)) == Spread(2, 1)
    assert domain_spread(Group(2, 1), on(16, 8, spread_out)) == Spread(1, 2)
    assert domain_spread(Group(4, 2), on(16, 4, spread_out)) == Spread(1, 4)
    assert rails_used(Group(2, 1), on(16, 4, spread_out)) == 1


def test_pairs_along_the_other_axis_of_a_torus() -> None:
    """4 x 4 devices: ranks 0 and 1 are one link apart along either axis, or nowhere near."""
    torus = Torus((4, 4), (True, True))
    columns = tuple(4 * (rank % 4) + rank // 4 for rank in range(16))
    assert torus_axes(Group(4, 1), on(16, 16, columns, torus=torus)) == (TorusAxis(4, 1, True),)
    blocks = (0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15)
    two_by_two = (TorusAxis(2, 1, False), TorusAxis(2, 1, False))
    assert torus_axes(Group(4, 1), on(16, 16, blocks, torus=torus)) == two_by_two
    apart = (0, 5, 10, 15, 1, 6, 11, 12, 2, 7, 8, 13, 3, 4, 9, 14)
    assert torus_axes(Group(4, 1), on(16, 16, apart, torus=torus)) is None


@given(size=st.sampled_from([2, 4, 8, 16]), stride=st.sampled_from([1, 2, 4, 8]))
def test_each_rank_on_its_own_device_is_no_placement(size: int, stride: int) -> None:
    torus = Torus((4, 8), (True, False))
    if size * stride <= 32:
        plain = torus_axes(Group(size, stride), on(32, 32, (), torus=torus))
        given_ = torus_axes(Group(size, stride), on(32, 32, tuple(range(32)), torus=torus))
        assert given_ == plain
