"""The shipped routing scenarios say what the papers and traces they are about say."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from moesim.moe.traces import counts_of, read_npz
from moesim.spec.load import load_scenario
from moesim.spec.shipped import shipped
from moesim.study.report.routing_summary import summary
from moesim.study.routing_study import RoutingStudy, routing_study


@cache
def study(name: str, *settings: str) -> RoutingStudy:
    return routing_study(load_scenario(f"routing-{name}", settings))


def figures(name: str, *settings: str) -> dict[str, Any]:
    return summary(study(name, *settings))


def test_the_released_switch_c_drops_a_tenth_of_its_tokens() -> None:
    """10.4 % under uniform routing: groups of 2,048, 2,048 experts, two slots each."""
    found = figures("switch-capacity")
    assert found["expected_dropped_fraction"] == pytest.approx(0.104, abs=5e-4)
    assert found["expected_drop_kind"] == "closed form"
    assert found["dropped_fraction"] == pytest.approx(0.104, abs=2e-3)
    assert found["capacity_waste_fraction"] == pytest.approx(1 - (1 - 0.104) / 2, abs=2e-3)


def test_gshards_second_expert_is_drawn_and_loses_its_slot_first() -> None:
    """k_eff = 1 + E[min(1, 2 g2)] lies between 1 and 2; first choices keep their slots longer."""
    found = figures("gshard-top2")
    assert 1 < found["expected_assignments_per_token"] < 2
    assert found["assignments_per_token"] == pytest.approx(
        found["expected_assignments_per_token"], rel=0.01
    )
    first, second = (row["dropped_fraction"] for row in found["drops"] if row["by"] == "choice")
    assert first < second
    everything = figures("gshard-top2", "routing.gating.second_policy=all")
    assert everything["assignments_per_token"] == 2.0


@pytest.mark.parametrize(
    ("w_importance", "w_load", "fullest"),
    [(0.1, 0.1, 1.14), (0.01, 0.01, 1.37), (1.0, 1.0, 1.07)],
)
def test_losses_leave_the_imbalance_that_shazeer_printed(
    w_importance: float, w_load: float, fullest: float
) -> None:
    """Table 6. Band: 35 % of what exceeds 1, as the printed CV has one digit or two."""
    found = figures(
        "noisy-topk",
        f"routing.load.balancing.w_importance={w_importance}",
        f"routing.load.balancing.w_load={w_load}",
    )
    assert found["expert_imbalance"] - 1 == pytest.approx(fullest - 1, rel=0.35)


def test_a_group_per_device_is_reached_twice() -> None:
    """Two of 16 groups, a device each: two ranks, where four free choices reach 3.66."""
    found = figures("hierarchical")
    assert found["reach_as_placed"]["ranks"] == pytest.approx(2.0)
    free = figures("hierarchical", "routing.gating.rule=softmax_topk", "routing.gating.levels=[]")
    assert free["reach_as_placed"]["ranks"] == pytest.approx(3.66, abs=0.05)


def test_deepseek_v3_reaches_at_most_four_nodes() -> None:
    """3.95 of 8 nodes on average (sampled with iid scores), not 5.3."""
    found = figures("deepseek-v3-nodes")
    assert found["reach_as_placed"]["domains"] == pytest.approx(3.95, abs=0.05)
    assert found["rank_imbalance"] < found["rank_imbalance_contiguous"] / 1.5


def test_a_replayed_trace_has_the_loads_of_the_trace() -> None:
    """Fullest over mean of each layer as in the file, both domains in equal parts; within 10 %."""
    traces = read_npz(shipped("scenarios") / "traces" / "tiny-moe.npz", experts=32)
    counted = np.sum([counts_of(trace) for trace in traces.values()], axis=0)
    measured = counted.max(axis=1) / counted.mean(axis=1)
    drawn = [layer.placed.expert_imbalance for layer in study("trace-replay").layers]
    assert drawn == pytest.approx(measured.tolist(), rel=0.1)


def test_greedy_placement_evens_the_ranks_of_the_trace() -> None:
    found = figures("trace-replay")
    assert found["rank_imbalance"] < 1.15 < found["rank_imbalance_contiguous"]
