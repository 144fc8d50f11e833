"""All-to-all and gathers on a torus against the load of every link under ordered routing."""

from collections import Counter
from itertools import product

import pytest

from moesim.cost.collectives import gather_s, send_s, uniform_all_to_all_s
from moesim.hardware.torus import Torus, TorusAxis, covered_axes
from tests.unit.cost.machines import net

Node = tuple[int, ...]


def _steps(start: int, end: int, length: int, ring: bool) -> list[tuple[tuple[int, int], float]]:
    """Return (from, to) hops along an axis and the share of the bytes that takes them.

    The short way round; half of the bytes each way where both are as long.
    """
    if start == end:
        return []
    if not ring:
        sign = 1 if end > start else -1
        return [((i, i + sign), 1.0) for i in range(start, end, sign)]
    up = (end - start) % length
    ways = [(1, up)] if up < length - up else [(-1, length - up)]
    if up * 2 == length:
        ways = [(1, up), (-1, up)]
    hops = []
    for sign, distance in ways:
        for i in range(distance):
            at = (start + sign * i) % length
            hops.append(((at, (at + sign) % length), 1 / len(ways)))
    return hops


def _fullest_link(shape: Node, rings: tuple[bool, ...]) -> float:
    """Return the bytes on the fullest link when each node spreads 1 byte evenly over all nodes."""
    nodes = list(product(*(range(length) for length in shape)))
    links: Counter[tuple[Node, Node]] = Counter()
    for source, target in product(nodes, nodes):
        at = list(source)
        for axis, length in enumerate(shape):  # one axis after the other
            for (here, there), share in _steps(at[axis], target[axis], length, rings[axis]):
                before, after = list(at), list(at)
                before[axis], after[axis] = here, there
                links[tuple(before), tuple(after)] += share / len(nodes)  # type: ignore[assignment]
            at[axis] = target[axis]
    return max(links.values())


@pytest.mark.parametrize(
    ("shape", "rings"),
    [
        ((4,), (True,)), ((8,), (True,)), ((2,), (False,)), ((4,), (False,)), ((6,), (False,)),
        ((4, 4), (True, True)), ((2, 4), (False, True)), ((4, 8), (True, True)),
        ((2, 2, 4), (False, False, False)), ((4, 4, 4), (True, True, True)),
    ],
)  # fmt: skip
def test_exchange_takes_as_long_as_its_fullest_link(shape: Node, rings: tuple[bool, ...]) -> None:
    size = 1
    for length in shape:
        size *= length
    axes = covered_axes(Torus(shape, rings), size, 1)
    here = net(1, size, axes=axes, link_bytes_per_s=10.0)
    expected_s = 600.0 * _fullest_link(shape, rings) / 10.0
    assert uniform_all_to_all_s(600.0, here) == pytest.approx(expected_s, rel=1e-9)


def test_members_that_are_apart_share_links_with_other_groups() -> None:
    """Eight nodes in a line, two groups of every other node: each link carries both.

    A group alone spreads B over 4 members, B on its middle hops (2 * 2 / 4); over a hop of two
    links go the bytes of both groups, hops of one group starting in the middle of the other's.
    """
    axes = covered_axes(Torus((8,), (False,)), 4, 2)
    assert axes == (TorusAxis(4, 2, False),)
    here = net(1, 4, axes=axes, link_bytes_per_s=10.0)
    links: Counter[tuple[int, int]] = Counter()
    for offset in (0, 1):
        for source, target in product(range(4), range(4)):
            for hop, _ in _steps(source * 2 + offset, target * 2 + offset, 8, False):
                links[hop] += 1
    fullest = max(links.values()) / 4
    assert uniform_all_to_all_s(600.0, here) == pytest.approx(600 * fullest / 10)


def test_gather_uses_both_ways_of_a_ring_and_all_axes() -> None:
    # 300 of 400 bytes arrive over two links of 10 bytes/s in a ring, over one at a line's end
    ring = net(1, 4, axes=(TorusAxis(4, 1, True),), link_bytes_per_s=10.0)
    line = net(1, 4, axes=(TorusAxis(4, 1, False),), link_bytes_per_s=10.0)
    assert gather_s(400.0, ring) == pytest.approx(15.0)
    assert gather_s(400.0, line) == pytest.approx(30.0)
    cube = net(
        1, 64, axes=(TorusAxis(4, 1, True),) * 3, link_bytes_per_s=10.0, scale_up_latency_s=1.0
    )
    # 63/64 of 640 bytes over six links, and three steps along each of three axes
    assert gather_s(640.0, cube) == pytest.approx(630 / 60 + 9)


def test_a_neighbour_is_one_link_away() -> None:
    here = net(1, 4, axes=(TorusAxis(4, 1, True),), link_bytes_per_s=10.0)
    assert send_s(100.0, here) == pytest.approx(10.0)
