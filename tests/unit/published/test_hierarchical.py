"""Two-level mixtures: Shazeer's Table 7, and mesh-tensorflow's second layer."""

import numpy as np
import pytest

from moesim.moe.capacity import CapacityRule, slots
from moesim.moe.choices import Choices, assignments_per_token, parts_reached
from moesim.moe.dispatchers import linked
from moesim.moe.gating.gate import Gate, Level
from moesim.moe.gating.nested import nested_size
from moesim.moe.gating.table import choose
from moesim.moe.keeping import keep


def test_work_of_a_router_with_two_levels() -> None:
    """Shazeer et al. 2017, Table 7: 8.6M operations flat, 8.4M in two levels, 256 experts.

    Width 512; 4 of 256, against 2 of 16 groups and 2 of 16 experts in each. Both matrices, W_g and
    W_noise, are asked: the experts are the same work, so that the difference is the routers'.
    Band: 0.1M, half of the last digit of either figure.
    """
    flat = nested_size((Level(fanout=256, limit=4),))
    levels = nested_size((Level(fanout=16, limit=2), Level(fanout=16, limit=2)))
    assert (flat.stored, flat.active) == (levels.stored, levels.active) == (256, 4)
    saved = 2 * 512 * (flat.router_scores - levels.router_scores)
    assert saved == pytest.approx(8.6e6 - 8.4e6, abs=0.1e6)


def _mtf(policy: str = "random_mtf") -> Gate:
    levels = (Level(fanout=4, limit=2), Level(fanout=8, limit=2))
    return Gate(experts=32, top_k=3, second_policy=policy, levels=levels)  # type: ignore[arg-type]


def test_experts_of_a_token_in_mesh_tensorflow() -> None:
    """tensorflow/mesh moe.py transformer_moe_layer_v2 @da907937: 0 to 3 experts.

    Up to two in the first group, at most one in the second; none only where no slot is left, and
    with every second choice sent just three.
    """
    shares = np.random.default_rng(0).dirichlet(np.full(32, 1.0))
    found = choose("mtf_v2", _mtf(), shares, 20_000, generator=np.random.default_rng(1))
    used = assignments_per_token(found)
    assert sorted(set(used.tolist())) == [1, 2, 3]
    assert parts_reached(found, 32, 4).max() == 2
    full = choose("mtf_v2", _mtf("all"), shares, 2000, generator=np.random.default_rng(1))
    assert (assignments_per_token(full) == 3).all()


def test_capacity_of_both_levels() -> None:
    """First level 1.25 (2.0 at evaluation) times T / groups, second 1.0 times what that holds.

    1,024 tokens, 4 groups of 8 experts: 320 slots a group and 40 an expert; 512 and 64. k is not
    in it, so that 1,280 of up to 3,072 assignments find a slot and some tokens none.
    """
    inner = CapacityRule(formula="switch", factor=1.0)
    for factor, group_slots, expert_slots in ((1.25, 320, 40), (2.0, 512, 64)):
        outer = CapacityRule(formula="switch", factor=factor)
        assert slots(outer, 1024, 4, 2) == group_slots
        assert slots(inner, group_slots, 8, 2) == expert_slots
    found = choose(
        "mtf_v2", _mtf("all"), np.full(32, 1 / 32), 1024, generator=np.random.default_rng(2)
    )
    order = np.argsort(-found.weights, axis=1)
    ranked = Choices(
        np.take_along_axis(found.experts, order, axis=1),
        np.take_along_axis(found.weights, order, axis=1),
    )
    kept = keep(ranked, 40, by_choice=True)
    assert kept.sum() <= 32 * 40 < (ranked.experts >= 0).sum()
    assert set(kept.sum(axis=1).tolist()) <= {0, 1, 2, 3}
    assert (kept.sum(axis=1) == 0).any()


def test_both_levels_cross_a_link_of_their_own() -> None:
    # two all-to-alls each way: one between the groups, one inside them
    links = [level.link for level in linked(_mtf().levels, domains=4)]
    assert links == ["scale_out", "scale_up"]
