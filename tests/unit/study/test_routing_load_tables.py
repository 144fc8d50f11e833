"""Tables about loads in a routing study: experts touched, granularity, traces, expectations."""

from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.study.report.routing_load_tables import granularity, touched_experts, trace
from moesim.study.report.routing_page import html
from moesim.study.report.routing_summary import summary
from moesim.study.report.routing_tables import tables
from moesim.study.routing_study import RoutingStudy, routing_study
from tests.shared_files import shared
from tests.unit.study.routing_runs import TOKENS, scenario

V2_LITE = "deepseek-v2-lite"
UNIFORM = {"law": "uniform"}


def of_v2_lite(folder: Path, load: dict[str, Any], ep: int = 4) -> RoutingStudy:
    asked = scenario(folder, {"load": load}, V2_LITE)
    return routing_study(asked.model_copy(update={"parallel": _with_ep(asked.parallel, ep)}))


def _with_ep(parallel: Any, ep: int) -> Any:
    return parallel.model_copy(update={"ep": ep})


def test_a_batch_touches_what_uniform_choices_do_at_most(tmp_path: Path) -> None:
    """6 of 64 experts, 16 tokens: 64 (1 - (58/64)^16) = 50.75."""
    rows = {row["tokens"]: row for row in touched_experts(of_v2_lite(tmp_path, UNIFORM))}
    assert list(rows) == [1, 4, 16, 64, 256, 1024, 4096]
    assert rows[16]["uniform_experts"] == pytest.approx(50.75, abs=0.01)
    assert rows[16]["independent_experts"] == pytest.approx(50.75, abs=0.01)
    assert rows[1]["expert_weights_read_fraction"] == pytest.approx(6 / 64)
    assert rows[16]["bursty_experts"] is None


def test_tokens_that_are_alike_touch_fewer_experts(tmp_path: Path) -> None:
    load = {"preset": "deepseek_v2_lite_inference", "burst": 1.71}
    row = touched_experts(of_v2_lite(tmp_path, load))[2]
    assert row["bursty_experts"] < row["independent_experts"] < row["uniform_experts"]
    assert row["expert_weights_read_fraction"] == pytest.approx(row["bursty_experts"] / 64)


def test_splitting_experts_by_hand(tmp_path: Path) -> None:
    """Four ranks: 4 of 16 experts reach 4 (1 - C(12, 4) / C(16, 4)) = 4 (1 - 495 / 1820)."""
    rows = granularity(routing_study(scenario(tmp_path, {"load": UNIFORM})))
    whole, split = (row for row in rows if row["pieces"] < 3 and not row["made_shared"])
    assert (whole["experts"], whole["top_k"], whole["expert_width"]) == (8, 2, 14336)
    assert (split["experts"], split["top_k"], split["expert_width"]) == (16, 4, 7168)
    assert split["copies_per_rank"] == pytest.approx(4 * (1 - 495 / 1820))
    assert split["rows_per_expert"] == whole["rows_per_expert"] == TOKENS / 4
    assert {row["active_width"] for row in rows} == {2 * 14336}
    assert {row["stored_width"] for row in rows} == {8 * 14336}
    # half a block of 128 rows over 1,024
    assert split["padding_fraction"] == whole["padding_fraction"] == 0.0625


def test_expected_rows_stand_beside_the_drawn_ones(tmp_path: Path) -> None:
    made = routing_study(scenario(tmp_path, {"load": {"law": "lognormal", "cv": 0.5}}))
    for row in tables(made)["experts"]:
        chance = row["expected"] / TOKENS
        assert abs(row["routed"] - row["expected"]) <= 5 * (TOKENS * chance * (1 - chance)) ** 0.5
    assert sum(row["expected"] for row in tables(made)["experts"][:8]) == pytest.approx(2 * TOKENS)


def test_gshard_sends_as_many_as_its_closed_form_says(tmp_path: Path) -> None:
    """E[min(1, 2 g2)] for many equal experts: 2 (1 - ln 2), so 1.614 experts a token."""
    gating = {"rule": "gshard_top2", "second_policy": "random_gshard"}
    routing = {"load": UNIFORM, "gating": gating}
    asked = scenario(tmp_path, routing, "nllb-moe-54b", target_length=512)
    summed = summary(routing_study(asked))
    assert summed["expected_assignments_per_token"] == pytest.approx(3 - 2 * log(2), rel=0.01)
    limited = {"load": {"law": "lognormal", "cv": 1}, "gating": {"rule": "deepseek_v3"}}
    unknown = routing_study(scenario(tmp_path, limited, "deepseek-v3"))
    assert summary(unknown)["expected_assignments_per_token"] is None
    assert tables(unknown)["experts"][0]["expected"] is None


def test_nesting_is_counted(tmp_path: Path) -> None:
    """Two of two outer experts, one of four inside each: 2 + 2 * 4 scores and router weights."""
    levels = [{"fanout": 2, "limit": 2}, {"fanout": 4, "limit": 1}]
    routing = {"load": UNIFORM, "gating": {"rule": "nested", "levels": levels}}
    summed = summary(routing_study(scenario(tmp_path, routing)))
    assert summed["nested"] == {
        "stored": 8, "active": 2, "router_params": 10, "router_scores": 10,
    }  # fmt: skip


def test_a_table_of_counts_shows_what_counts_can_tell(tmp_path: Path) -> None:
    """Loads 1, 1, 1, 1, 1, 1, 1, 5: mean 1.5, variance 1.75, fullest 10 / 3, fullest rank 2."""
    rows = [f"m,final,text,0,top2,{e},{500 if e == 7 else 100}" for e in range(8)]
    head = "model,checkpoint,domain,layer,selection,expert,count"
    (tmp_path / "loads.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    made = routing_study(scenario(tmp_path, {"load": {"law": "trace", "trace": "loads.csv"}}))
    for row in tables(made)["layers"]:
        # 8 (7/12^2 + (5/12)^2) = 8 * 32 / 144, up to what counts scatter
        assert row["balance_loss"] == pytest.approx(8 * 32 / 144, rel=0.03)
        assert row["load_cv"] == pytest.approx(1.75**0.5 / 1.5, rel=0.03)
    for row in trace(made):
        assert row["cv"] == pytest.approx(1.75**0.5 / 1.5)
        assert row["expert_imbalance"] == pytest.approx(10 / 3)
        assert row["rank_imbalance"] == pytest.approx(2.0)
        assert row["distinct_ranks"] is None
        assert row["burst"] is None
    assert "What was measured" in html(made)


@pytest.mark.parametrize(("ep", "fullest"), [(4, 1.24), (8, 1.48)])
def test_real_routing_beside_what_the_law_makes_of_it(
    tmp_path: Path, ep: int, fullest: float
) -> None:
    """DeepSeek-V2-Lite, four tasks: figures of the notes on expert loads.

    Ranks in order 1.24 and 1.48; neighbours share 1.67 of 6 experts; 16 tokens in order touch 37.7
    experts; a token reaches 4.553 of 8 ranks, 4.536 by the uniform closed form.
    """
    path = shared("expert-loads/deepseek_v2_lite_esft_routing_trace.npz")
    made = of_v2_lite(tmp_path, {"law": "trace", "trace": str(path)}, ep)
    rows = trace(made)
    assert np.mean([row["rank_imbalance"] for row in rows]) == pytest.approx(fullest, abs=0.01)
    assert np.mean([row["shared_with_neighbour"] for row in rows]) == pytest.approx(1.67, abs=0.01)
    measured = {row["tokens"]: row["measured_experts"] for row in touched_experts(made)}
    assert measured[16] == pytest.approx(37.7, abs=0.2)
    if ep == 8:
        assert np.mean([row["distinct_ranks"] for row in rows]) == pytest.approx(4.553, abs=0.005)
        assert rows[0]["distinct_ranks_assumed"] == pytest.approx(4.536, abs=0.001)
