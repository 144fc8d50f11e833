"""Group limits: how many groups a token reaches, and what is published about it."""

from itertools import combinations

import numpy as np
import pytest

from moesim.moe.choices import parts_reached
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.limited import chosen_in_groups, limited_groups
from moesim.moe.gating.table import choose

V3 = Gate(experts=256, top_k=8, groups=8, groups_per_token=4)
V2 = Gate(experts=160, top_k=6, groups=8, groups_per_token=3)


def test_deepseek_v3_reaches_3_954_of_8_nodes() -> None:
    """Drawn elsewhere from 20,000 tokens of uniform scores: 3.954, so +- 4 * sqrt(2) errors."""
    scores = np.random.default_rng(11).random((20_000, 256))
    chosen = chosen_in_groups(V3, scores, count_best=2)
    groups = np.zeros((20_000, 8), dtype=bool)
    np.put_along_axis(groups, chosen // 32, True, axis=1)
    reached = groups.sum(axis=1)
    assert reached.max() == 4
    error = float(reached.std()) / 20_000**0.5
    assert abs(reached.mean() - 3.954) < 4 * 2**0.5 * error + 0.0005


def test_the_rule_itself_reaches_as_many_as_uniform_scores() -> None:
    """Only ranks of the best few count, so that sigmoid scores of logits do the same."""
    found = choose(
        "deepseek_v3", V3, np.full(256, 1 / 256), 20_000, generator=np.random.default_rng(0)
    )
    reached = parts_reached(found, 256, 8)
    assert reached.mean() == pytest.approx(3.954, abs=0.01)


def test_no_limit_reaches_as_the_flat_choice() -> None:
    # G (1 - C(E - E/G, k) / C(E, k)): 5.295 for 8 of 256 and 4.459 for 6 of 160 on eight
    for gate, expected in ((V3, 5.295), (V2, 4.459)):
        free = Gate(experts=gate.experts, top_k=gate.top_k, groups=8, groups_per_token=8)
        assert limited_groups(free) == pytest.approx(expected, abs=6e-4)


def test_limited_groups_by_enumeration() -> None:
    """min(M, distinct groups) over every choice of k of 8 experts in 4 groups."""
    for k in range(1, 5):
        for keep in range((k + 1) // 2, 5):
            reached = [min(keep, len({e // 2 for e in c})) for c in combinations(range(8), k)]
            gate = Gate(experts=8, top_k=k, groups=4, groups_per_token=keep)
            assert limited_groups(gate) == pytest.approx(np.mean(reached), rel=1e-12)


@pytest.mark.parametrize("gate", [V2, Gate(experts=16, top_k=4, groups=4, groups_per_token=2)])
def test_deepseek_v2_reaches_the_closed_form(gate: Gate) -> None:
    """A group enters by its best expert, so nearly every token uses all M of its groups.

    2.995 of 3 devices for DeepSeek-V2: more than the 2.770 of three groups taken at random.
    """
    tokens, shares = 20_000, np.full(gate.experts, 1 / gate.experts)
    found = choose("deepseek_v2", gate, shares, tokens, generator=np.random.default_rng(3))
    reached = parts_reached(found, gate.experts, gate.groups)
    error = float(reached.std()) / tokens**0.5
    assert abs(reached.mean() - limited_groups(gate)) < 4 * error


def test_deepseek_v2_figure() -> None:
    assert limited_groups(V2) == pytest.approx(2.995, abs=5e-4)


def test_experts_in_the_best_groups_by_sorting() -> None:
    """Token by token: the groups with the most in their two best scores, the best in them."""
    gate = Gate(experts=24, top_k=4, groups=6, groups_per_token=2)
    scores = np.random.default_rng(5).random((200, 24))
    for best in (1, 2):
        found = chosen_in_groups(gate, scores, count_best=best)
        for token, each in enumerate(scores.tolist()):
            groups = [sorted(each[4 * g : 4 * g + 4])[-best:] for g in range(6)]
            allowed = sorted(range(6), key=lambda g: sum(groups[g]))[-2:]
            inside = [e for e in range(24) if e // 4 in allowed]
            chosen = sorted(inside, key=each.__getitem__)[-4:]
            assert sorted(found[token].tolist()) == sorted(chosen)
