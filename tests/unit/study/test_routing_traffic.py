"""Bytes from rank to rank in the routing study: by hand, conserved, and against closed forms."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.errors import ScenarioError
from moesim.spec.load import load_scenario
from moesim.study.report.routing_summary import summary
from moesim.study.report.routing_tables import tables
from moesim.study.routing_study import RoutingStudy, routing_study
from moesim.study.routing_traffic import Sending, parts_of_ranks
from tests.unit.study.test_routing_study import write

UNIFORM = {"law": "uniform"}
TOKENS, HIDDEN = 4096, 4096
"""Of a rank, two sequences of 2048; the width of Mixtral-8x7B."""


def studied(
    folder: Path, routing: Mapping[str, Any], model: str = "mixtral-8x7b", ep: int = 8,
    **parallel: Any,
) -> RoutingStudy:  # fmt: skip
    path = write(folder, model, ep, routing)
    text = json.loads(path.read_text(encoding="utf-8"))
    text["parallel"] |= parallel
    path.write_text(json.dumps(text), encoding="utf-8")
    return routing_study(load_scenario(path))


def sent(study: RoutingStudy) -> dict[str, Sending]:
    return {one.dispatcher: one for one in study.traffic.sendings}


def test_uniform_choices_send_what_the_closed_forms_say(tmp_path: Path) -> None:
    """Eight ranks of one node with one expert each, top-2: T k / 8 rows for every other rank.

    Two choices are two ranks, so deduplicating saves nothing; a gather brings T rows from each.
    """
    found = sent(studied(tmp_path, {"load": UNIFORM}))
    rows = {"alltoall": TOKENS * 2 / 8, "deduplicated": TOKENS * 2 / 8, "deepep": TOKENS * 2 / 8}
    for name, each in {**rows, "allgather": TOKENS}.items():
        away = found[name].dispatch_bytes[~np.eye(8, dtype=bool)] / (2 * HIDDEN)
        assert away.mean() == pytest.approx(each, rel=0.01), name
        assert (np.abs(away - each) <= 5 * np.sqrt(each) + 1e-9).all(), name
        assert np.diag(found[name].dispatch_bytes).tolist() == [0.0] * 8
        expected = found[name].expected_bytes
        assert expected is not None
        assert expected[0, 1] == pytest.approx(each * 2 * HIDDEN, rel=1e-9), name
        assert found[name].scale_out_bytes == 0


@pytest.mark.parametrize("placement", [{}, {"rule": "replicated", "redundant_experts": 16}])
def test_what_combine_brings_back_is_what_dispatch_sent(
    tmp_path: Path, placement: Mapping[str, Any]
) -> None:
    """Exactly, pair by pair, over two nodes, with drops and with replicas (L1)."""
    routing = {
        "load": {"law": "lognormal", "cv": 1.0}, "placement": placement,
        "capacity": {"factor": 1.0, "pad": True},
    }  # fmt: skip
    study = studied(tmp_path, routing, "olmoe-1b-7b", 16)
    assert set(sent(study)) == {"alltoall", "deduplicated", "deepep", "allgather", "padded"}
    for one in study.traffic.sendings:
        assert one.dispatch_bytes.tolist() == one.combine_bytes.T.tolist()
        total = one.dispatch_bytes.sum() + one.combine_bytes.sum()
        assert one.scale_up_bytes + one.scale_out_bytes == pytest.approx(total, rel=1e-12)
    for row in tables(study)["traffic"]:
        assert row["dispatch_bytes"] == row["combine_bytes"]


def test_a_narrow_dispatch_comes_back_wide(tmp_path: Path) -> None:
    """fp8 with an fp32 scale per 128 elements there, bf16 back: 1.03125 to 2 bytes."""
    for one in studied(tmp_path, {"load": UNIFORM}, dispatch_dtype="fp8").traffic.sendings:
        assert (one.combine_bytes.T * 1.03125 / 2).tolist() == one.dispatch_bytes.tolist()


def test_padded_buffers_do_not_follow_the_load(tmp_path: Path) -> None:
    """Megatron, factor 1.25: 1280 slots for 4096 tokens of a rank, so 1280 rows to each other."""
    routing = {
        "load": {"law": "lognormal", "cv": 1.0},
        "capacity": {"factor": 1.25, "formula": "megatron", "pad": True, "scope": "rank"},
    }
    study = studied(tmp_path, routing)
    assert study.traffic.own == "padded"
    away = sent(study)["padded"].dispatch_bytes[~np.eye(8, dtype=bool)]
    assert (away == 1280 * 2 * HIDDEN).all()


def test_etp_ranks_gather_what_arrived(tmp_path: Path) -> None:
    """Four positions of two ranks. A rank sends T k / 4 rows to three; T k arrive, for its pair.

    One copy per position: two of eight experts lie on 4 (1 - 15/28) = 13/7 of four positions.
    """
    found = sent(studied(tmp_path, {"load": UNIFORM}, ep=4, etp=2))
    for name, copies in (("alltoall", 2), ("deepep", 13 / 7)):
        each = TOKENS * copies / 4 * 2 * HIDDEN
        expected, drawn = found[name].expected_bytes, found[name].dispatch_bytes
        assert expected is not None
        row = [0, 4 * each, each, 0, each, 0, each, 0]
        assert expected[0].tolist() == pytest.approx(row, rel=1e-9)
        assert drawn.sum() == pytest.approx(8 * 7 * each, rel=0.01)
        assert ((drawn > 0) == (expected > 0)).all()


def test_hybridep_sends_the_rows_of_deepep(tmp_path: Path) -> None:
    study = studied(tmp_path, {"load": UNIFORM}, ep=4, dispatcher="hybridep")
    assert study.traffic.own == "deepep"
    assert study.traffic.own in sent(study)


def test_drops_are_not_sent(tmp_path: Path) -> None:
    routing = {"load": {"law": "lognormal", "cv": 1.0}, "capacity": {"factor": 0.5}}
    study = studied(tmp_path, routing, "olmoe-1b-7b")
    kept = study.layers[0].placed.computed / study.layers[0].placed.routed
    assert kept <= 0.5
    copies = sent(study)["alltoall"].dispatch_bytes.sum() / (8 * TOKENS * 2 * 2048)
    assert copies == pytest.approx(8 * kept * 7 / 8, rel=0.02)


def test_experts_apart_from_their_group_reach_more_nodes(tmp_path: Path) -> None:
    """DeepSeek-V3 on eight nodes: 3.954 of them with groups together, 5.295 scattered.

    The published Monte Carlo values of node-limited and of flat routing; loads nearly even.
    """
    load = {"law": "lognormal", "cv": 0.05}
    reached, out = {}, {}
    for rule in ("contiguous", "greedy"):
        study = studied(tmp_path, {"load": load, "placement": {"rule": rule}}, "deepseek-v3", 64)
        reached[rule] = study.traffic.reach.domains
        out[rule] = sent(study)["deepep"].scale_out_bytes
    assert reached["contiguous"] == pytest.approx(3.954, abs=0.02)
    assert reached["greedy"] == pytest.approx(5.295, abs=0.1)
    assert out["greedy"] / out["contiguous"] == pytest.approx(5.295 / 3.954, rel=0.03)


def test_replicas_inside_nodes_save_bytes_between_them(tmp_path: Path) -> None:
    found = {}
    for rule in ("replicated", "replicated_by_node"):
        routing = {
            "load": {"law": "lognormal", "cv": 1.0},
            "placement": {"rule": rule, "redundant_experts": 32},
        }
        found[rule] = sent(studied(tmp_path, routing, "deepseek-v3", 32))["deepep"]
    by_node, anywhere = found["replicated_by_node"], found["replicated"]
    assert by_node.scale_out_bytes < 0.95 * anywhere.scale_out_bytes


def test_many_ranks_are_taken_together_by_domain(tmp_path: Path) -> None:
    assert parts_of_ranks(64, 8) == 64
    assert parts_of_ranks(128, 16) == 16
    assert parts_of_ranks(128, 1) == 64
    assert parts_of_ranks(2048, 256) == 64
    study = studied(tmp_path, {"load": UNIFORM}, "deepseek-v3", 128)
    one = sent(study)["alltoall"]
    assert one.dispatch_bytes.shape == (16, 16)
    # inside a domain eight ranks send to seven others each, out of it all eight to eight
    own, other = np.eye(16, dtype=bool), ~np.eye(16, dtype=bool)
    ratio = one.dispatch_bytes[own].mean() / one.dispatch_bytes[other].mean()
    assert ratio == pytest.approx(7 / 8, rel=0.05)
    assert study.traffic.ranks_per_part == 8


LEVELS: list[dict[str, Any]] = [{"fanout": 4, "limit": 2}, {"fanout": 16, "limit": 4}]


@pytest.mark.parametrize("link", [None, "scale_out"])
def test_rows_of_a_hierarchy_by_hand(tmp_path: Path, link: str | None) -> None:
    """Two of four groups, four experts in each, on 16 ranks of two nodes.

    Level 1: two rows, of which a quarter stays. Level 2: eight rows for four ranks of a group, of
    which a quarter stays: six, over the link named or scale-up.
    """
    lower = LEVELS[1] if link is None else {**LEVELS[1], "link": link}
    gating = {"rule": "hierarchical", "levels": [LEVELS[0], lower]}
    study = studied(tmp_path, {"load": UNIFORM, "gating": gating}, "olmoe-1b-7b", 16)
    first, second = (row for row in summary(study)["dispatch"] if row["level"])
    assert first["scale_out_rows_per_token"] == pytest.approx(1.5, rel=1e-9)
    assert first["scale_up_rows_per_token"] == 0
    inside, between = (6.0, 0.0) if link is None else (0.0, 6.0)
    assert second["scale_up_rows_per_token"] == pytest.approx(inside, rel=1e-9)
    assert second["scale_out_rows_per_token"] == pytest.approx(between, rel=1e-9)


def test_a_link_out_of_the_only_domain_is_told(tmp_path: Path) -> None:
    levels = [{**LEVELS[0], "link": "scale_out"}, LEVELS[1]]
    routing = {"load": UNIFORM, "gating": {"rule": "hierarchical", "levels": levels}}
    with pytest.raises(ScenarioError, match="one scale-up domain"):
        studied(tmp_path, routing, "olmoe-1b-7b", 8)
