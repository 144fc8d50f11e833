"""The published constants of routing, each with what checks it."""

from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from moesim.moe.gating import losses
from moesim.moe.gating.bias import BiasUpdate
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.limited import limited_groups
from moesim.moe.gating.second import chance
from tests.shared_files import shared


@pytest.fixture(scope="module")
def published() -> Any:
    return YAML(typ="safe").load(shared("published/moe-semantics.yaml"))


def _row(rows: Any, name: str) -> Any:
    (found,) = (row for row in rows if row["id"] == name)
    return found


def test_every_exact_row_on_routing_has_a_test(published: Any) -> None:
    exact = {row["id"] for row in published["routing_constants"] if row["use"] == "exact"}
    assert exact == {"gshard_random", "mtf_random", "fairseq_random", "switch_alpha", "zloss"}
    levels = {row["id"] for row in published["hierarchical"] if row["use"] == "exact"}
    assert levels == {"mtf_v2"}  # test_hierarchy.py


def test_second_expert_constants(published: Any) -> None:
    rows = published["routing_constants"]
    assert "2*g2 > U(0,1)" in _row(rows, "gshard_random")["what"]
    assert "min(1, g2/threshold), threshold 0.2" in _row(rows, "mtf_random")["what"]
    # the default threshold, and both rules at a weight of 0.12
    gshard, mtf = (
        chance(Gate(experts=8, top_k=2, second_policy=policy), np.array([0.12]))[0]
        for policy in ("random_gshard", "random_mtf")
    )
    assert (gshard, mtf) == pytest.approx((0.24, 0.6))


def test_losses_as_written(published: Any) -> None:
    rows = published["routing_constants"]
    assert "alpha*N*sum f_i P_i" in _row(rows, "switch_alpha")["what"]
    share, mean = np.array([0.5, 0.25, 0.25]), np.array([0.4, 0.4, 0.2])
    assert losses.balance(share, mean) == pytest.approx(3 * (0.2 + 0.1 + 0.05))
    assert "mean over tokens of (logsumexp of router logits)^2" in _row(rows, "zloss")["what"]
    logits = np.array([[0.0, np.log(3.0)], [1.0, 1.0]])
    expected = (np.log(4.0) ** 2 + (1 + np.log(2.0)) ** 2) / 2
    assert losses.router_z(logits) == pytest.approx(expected)


def test_bias_update_speed(published: Any) -> None:
    row = _row(published["load_balance_published"], "dsv3_train_balance")
    assert f"bias update speed {BiasUpdate().speed:g}" in row["what"]


def test_flat_fan_out(published: Any) -> None:
    values = published["fan_out_computed"]["values"]
    for name, experts, top_k in (
        ("dsv3_top8of256_8nodes_flat", 256, 8), ("dsv2_top6of160_8dev_flat", 160, 6),
    ):  # fmt: skip
        gate = Gate(experts=experts, top_k=top_k, groups=8, groups_per_token=8)
        assert limited_groups(gate) == pytest.approx(values[name], abs=6e-4)
    assert values["dsv3_top8of256_8nodes_M4_iid_scores_montecarlo"] == 3.954  # test_limited.py
