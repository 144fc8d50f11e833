"""Rebalancing in the routing study: by hand, bounds of its seconds, and staleness."""

from pathlib import Path
from typing import Any

import pytest

from moesim.spec.load import load_scenario
from moesim.study.report.routing_traffic_tables import summary, tables
from moesim.study.resolve import resolve
from moesim.study.routing import moe_layers
from moesim.study.routing_rebalancing import looked_at, moved_bytes
from moesim.study.routing_study import routing_study
from tests.unit.study.test_routing_study import write

SKEWED = {"law": "lognormal", "cv": 1.0}
EXPERT = 3 * 4096 * 14336
"""Parameters of one expert of Mixtral-8x7B: gate, up and down."""


def scenario(folder: Path, model: str = "mixtral-8x7b", ep: int = 8, **placement: Any) -> Any:
    placement = {"rule": "greedy", "share_correlation": 0.9, **placement}
    return load_scenario(write(folder, model, ep, {"load": SKEWED, "placement": placement}))


def test_steps_that_are_looked_at() -> None:
    """First and last of each of four stretches are there, all of short ones."""
    assert looked_at(2) == (0, 1, 2, 3, 4, 5, 6, 7)
    hundred = looked_at(100)
    assert len(hundred) == 24
    assert {0, 99, 100, 199, 200, 299, 300, 399} <= set(hundred)


def test_serving_moves_weights_and_training_states_too(tmp_path: Path) -> None:
    """bf16 weights; Adam adds a master weight and two moments in fp32, 12 bytes, on one replica."""
    replicated = resolve(scenario(tmp_path, rule="replicated"))
    greedy = resolve(scenario(tmp_path))
    one = next(iter(moe_layers(greedy)))
    assert moved_bytes(one, replicated) == 2 * EXPERT
    assert moved_bytes(one, greedy) == 14 * EXPERT


def test_one_expert_a_rank_fetches_at_most_one_in_each_layer(tmp_path: Path) -> None:
    """Eight experts on eight ranks of one node: placement helps nothing, nothing leaves the node.

    A rank receives at most one expert in each of 32 layers; H100: 450 GB/s at the efficiency of
    the software at most.
    """
    study = routing_study(scenario(tmp_path, rebalance_every=10))
    rows = tables(study)["rebalancing"]
    for row in rows:
        assert row["rank_imbalance"] == pytest.approx(row["rank_imbalance_kept"])
        assert row["moved_experts"] <= 32 * 8
        assert row["fullest_received_bytes"] <= 32 * 14 * EXPERT
        assert row["between_domains_bytes"] == 0
        assert row["transfer_s"] >= row["fullest_received_bytes"] / 450e9
        assert (row["transfer_s"] > 0) == (row["step"] in (10, 20, 30))


def test_placing_anew_keeps_up_with_drifting_loads(tmp_path: Path) -> None:
    """Often is better than seldom, seldom no worse than never, and costs more per step."""
    found = {
        every: summary(routing_study(scenario(tmp_path, "olmoe-1b-7b", 8, rebalance_every=every)))[
            "rebalancing"
        ]
        for every in (2, 20)
    }
    assert found[2]["rank_imbalance"] < found[20]["rank_imbalance"]
    assert found[20]["rank_imbalance"] < found[20]["rank_imbalance_kept"]
    assert found[2]["transfer_s_per_step"] > found[20]["transfer_s_per_step"]


def test_a_placement_that_stays_has_no_table(tmp_path: Path) -> None:
    study = routing_study(scenario(tmp_path))
    assert "rebalancing" not in tables(study)
    assert summary(study)["rebalancing"] is None
