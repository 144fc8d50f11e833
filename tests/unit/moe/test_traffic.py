"""Fan-out of a token over ranks and domains: cited figures, enumeration, group-limited routing."""

from itertools import combinations
from math import comb

import pytest

from moesim.moe.dispatchers import DISPATCHERS
from moesim.moe.traffic import Destinations, fan_out, limited_fan_out


@pytest.mark.parametrize(
    ("parts", "experts", "top_k", "expected"),
    [
        # DeepSeek-V2-Lite (6 of 64) by real routing: 3.355, 4.553, 5.334 and 5.764 distinct ranks;
        # the hypergeometric law gives
        (4, 64, 6, 3.345), (8, 64, 6, 4.536), (16, 64, 6, 5.316), (32, 64, 6, 5.762),
        # DeepSeek-V3 (8 of 256) on eight nodes without limits, and on 32 and 64 ranks
        (8, 256, 8, 5.295), (32, 256, 8, 7.267), (64, 256, 8, 7.676),
        # DeepSeek-V2 (6 of 160) on eight devices; Qwen3 (8 of 128); Mixtral (2 of 8)
        (8, 160, 6, 4.459), (8, 128, 8, 5.339), (16, 128, 8, 6.597), (32, 128, 8, 7.359),
        (8, 8, 2, 2.0),
    ],
)  # fmt: skip
def test_cited_fan_out(parts: int, experts: int, top_k: int, expected: float) -> None:
    assert fan_out(parts, experts, top_k) == pytest.approx(expected, abs=6e-4)


def test_fan_out_by_enumeration() -> None:
    """Count the distinct parts of every possible choice."""
    for parts, experts in ((1, 4), (2, 4), (2, 8), (4, 8), (3, 9), (5, 10), (6, 12)):
        for top_k in range(1, min(experts, 6) + 1):
            choices = list(combinations(range(experts), top_k))
            reached = sum(len({e * parts // experts for e in chosen}) for chosen in choices)
            expected = reached / len(choices)
            assert fan_out(parts, experts, top_k) == pytest.approx(expected, rel=1e-12)


def _limited(parts: int, where: Destinations) -> float:
    """Enumerate the allowed groups; inside them a part is missed hypergeometrically.

    A part with `inside` experts in the pool of P is missed by C(P - inside, k) / C(P, k) choices.
    """
    size = where.experts // where.groups
    pool = size * where.groups_per_token
    allowed = list(combinations(range(where.groups), where.groups_per_token))
    total = 0.0
    for groups in allowed:
        experts = [group * size + i for group in groups for i in range(size)]
        for part in range(parts):
            inside = sum(expert * parts // where.experts == part for expert in experts)
            total += 1 - comb(pool - inside, where.top_k) / comb(pool, where.top_k)
    return total / len(allowed)


def _deepseek_v3(ranks: int, domains: int) -> Destinations:
    return Destinations(
        experts=256, top_k=8, ranks=ranks, domains=domains, groups=8, groups_per_token=4
    )


@pytest.mark.parametrize("parts", [8, 16, 32, 64])
def test_group_limited_fan_out_where_a_group_has_parts_of_its_own(parts: int) -> None:
    where = _deepseek_v3(64, 8)
    assert limited_fan_out(where, parts) == pytest.approx(_limited(parts, where), rel=1e-9)


@pytest.mark.parametrize("parts", [2, 4])
def test_group_limited_fan_out_where_a_part_has_several_groups(parts: int) -> None:
    # DeepSeek-V3 on two nodes: nearly every token reaches both (1.93 in the mean, not 1)
    where = _deepseek_v3(16, parts)
    assert limited_fan_out(where, parts) == pytest.approx(_limited(parts, where), rel=1e-9)


def test_deepseek_v2_reaches_three_of_eight_devices() -> None:
    # three of eight groups of 20 experts, six choices among 60: 2.770 devices
    where = Destinations(experts=160, top_k=6, ranks=8, domains=1, groups=8, groups_per_token=3)
    assert limited_fan_out(where, 8) == pytest.approx(2.770, abs=6e-4)


def test_no_limit_is_the_plain_fan_out() -> None:
    for groups, per_token in ((1, 1), (8, 8)):
        where = Destinations(
            experts=64, top_k=6, ranks=8, domains=2, groups=groups, groups_per_token=per_token
        )
        assert limited_fan_out(where, 8) == fan_out(8, 64, 6)


def test_copies_by_hand() -> None:
    """Mixtral on two domains of four ranks, one expert per rank: each token makes two choices."""
    where = Destinations(experts=8, top_k=2, ranks=8, domains=2)
    straight = DISPATCHERS["alltoall"](where)
    assert straight.scale_out == pytest.approx(1.0)  # half of the choices
    assert straight.scale_up == pytest.approx(2 * 3 / 8)
    once = DISPATCHERS["deepep"](where)
    # both experts in the other domain: C(4,2)/C(8,2) = 6/28, one in it: 16/28
    assert once.scale_out == pytest.approx(22 / 28)
    # of two distinct ranks three in four are not where the copy enters the domain
    assert once.scale_up == pytest.approx(1.5)


def test_deduplication_never_sends_more_over_scale_out() -> None:
    for experts, top_k in ((8, 2), (64, 6), (256, 8)):
        for domains in (1, 2, 4, 8):
            where = Destinations(experts=experts, top_k=top_k, ranks=8, domains=domains)
            straight = DISPATCHERS["alltoall"](where).scale_out
            assert DISPATCHERS["deepep"](where).scale_out <= straight + 1e-12
