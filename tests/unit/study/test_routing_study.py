"""The routing study against published figures and closed forms, and the errors of its keys."""

import json
import subprocess
from collections.abc import Mapping
from math import log
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from rich.console import Console

from moesim.errors import ScenarioError
from moesim.spec.load import load_scenario
from moesim.study.report.routing_page import html, save
from moesim.study.report.routing_summary import summary
from moesim.study.report.routing_tables import tables
from moesim.study.report.routing_terminal import print_study
from moesim.study.routing_study import RoutingStudy, routing_study
from moesim.study.run import run

LOGNORMAL_OF_R1 = {"law": "lognormal", "cv": 1.418}
"""sigma 1.05: cv^2 = exp(1.05^2) - 1 (TensorRT-LLM tech_blog/blog4, table 1)."""


def write(folder: Path, model: str, ep: int, routing: Mapping[str, Any], **training: int) -> Path:
    sizes = {"sequence_length": 2048, "global_batch": 2 * ep, "micro_batch": 2, **training}
    text = {
        "model": model,
        "cluster": {"profile": "dgx-h100", "devices": max(8, ep)},
        "parallel": {"ep": ep, "etp": 1},
        "training": {**sizes, "global_batch": sizes["micro_batch"] * max(8, ep)},
        "routing": routing,
    }
    path = folder / "mine.yaml"
    path.write_text(json.dumps(text), encoding="utf-8")
    return path


def studied(folder: Path, model: str, ep: int, routing: Mapping[str, Any], **training: int) -> Any:
    return summary(routing_study(load_scenario(write(folder, model, ep, routing, **training))))


def study(folder: Path, routing: Mapping[str, Any]) -> RoutingStudy:
    return routing_study(load_scenario(write(folder, "mixtral-8x7b", 8, routing)))


def test_switch_c_as_released_drops_a_tenth(tmp_path: Path) -> None:
    """Groups of 2,048 tokens on 2,048 experts at factor 1, two slots at least: 10.4 %.

    Poisson with mean 1: sum over n > 2 of (n - 2) e^-1 / n! = 3 / e - 1 = 0.1036.
    """
    capacity = {"factor": 1.0, "formula": "flaxformer", "group_tokens": 2048, "min_slots": 2}
    routing = {"load": {"law": "uniform"}, "capacity": capacity}
    found = studied(tmp_path, "switch-c-2048", 8, routing, target_length=2048)
    assert found["expected_dropped_fraction"] == pytest.approx(0.1036, abs=5e-4)
    assert found["dropped_fraction"] == pytest.approx(0.1036, abs=2e-3)


def test_gshard_sends_the_second_choice_by_a_coin(tmp_path: Path) -> None:
    """With many equal experts E[min(1, 2 g2)] = 2 (1 - ln 2): 1.614 of two choices are sent."""
    gating = {"rule": "gshard_top2", "second_policy": "random_gshard"}
    routing = {"load": {"law": "uniform"}, "gating": gating}
    found = studied(tmp_path, "nllb-moe-54b", 8, routing, target_length=2048)
    assert found["assignments_per_token"] == pytest.approx(1 + 2 * (1 - log(2)), rel=0.01)


def test_deepseek_r1_with_and_without_redundant_experts(tmp_path: Path) -> None:
    """TensorRT-LLM: the fullest of 32 ranks exceeds the mean 1.564-fold; with 288 slots by 0.109.

    One draw of 58 layers, each about 0.8 off the mean, is known within 0.1: three of them.
    """
    placement = {"rule": "replicated", "redundant_experts": 32}
    routing = {"load": LOGNORMAL_OF_R1, "placement": placement}
    found = studied(tmp_path, "deepseek-v3", 32, routing, sequence_length=128, micro_batch=1)
    assert found["rank_imbalance_contiguous"] - 1 == pytest.approx(1.564, abs=0.32)
    assert found["rank_imbalance"] - 1 < 0.15
    assert found["replica_memory_fraction"] == pytest.approx(32 / 256)


def test_groups_picked_by_scores_reach_four_nodes_nearly(tmp_path: Path) -> None:
    """DeepSeek-V3 on eight nodes: 3.954 of at most 4 (published Monte Carlo), flat it is 5.295."""
    found = studied(tmp_path, "deepseek-v3", 64, {}, sequence_length=128, micro_batch=1)
    assert found["reach"]["domains"] == pytest.approx(3.954, abs=0.02)


def test_every_assignment_is_computed_or_dropped(tmp_path: Path) -> None:
    made = study(tmp_path, {"load": LOGNORMAL_OF_R1, "capacity": {"factor": 1.0}})
    for row in tables(made)["layers"]:
        assert row["routed"] == row["computed"] + row["dropped"] == 2 * 8 * 4096
    by_rank = tables(made)["ranks"]
    for layer in made.layers:
        rows = [row["rows"] for row in by_rank if row["layer"] == layer.number]
        assert sum(rows) == layer.placed.computed


def test_a_trace_is_followed(tmp_path: Path) -> None:
    """Expert 3 has three tenths of the assignments, the others one tenth: 2.4 times the mean."""
    rows = [f"m,final,text,0,top2,{e},{300 if e == 3 else 100}" for e in range(8)]
    head = "model,checkpoint,domain,layer,selection,expert,count"
    (tmp_path / "loads.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    made = study(tmp_path, {"load": {"law": "trace", "trace": "loads.csv"}})
    assert all(layer.drawn.routed.argmax() == 3 for layer in made.layers)
    assert summary(made)["expert_imbalance"] == pytest.approx(2.4, rel=0.02)


UNIFORM = {"law": "uniform"}


@pytest.mark.parametrize(
    ("routing", "message"),
    [
        ({"gating": {"rule": "st_moe"}}, "law even forbids"),
        ({"load": {"law": "lognormal", "cv": 1}, "gating": {"rule": "base"}}, "whatever the law"),
        ({"load": {**UNIFORM, "burst": 2}, "gating": {"rule": "gshard_top2"}}, "not modelled"),
        ({"load": UNIFORM, "gating": {"rule": "switch_top1"}}, "top_k is 1 here, not 2"),
        ({"load": UNIFORM, "placement": {"rule": "greedy", "share_correlation": 0.5}}, "with cv"),
        ({"placement": {"rule": "contiguous", "share_correlation": 0.5}}, "looks at no loads"),
        ({"placement": {"rule": "greedy", "redundant_experts": 8}}, "no redundant experts"),
        ({"placement": {"rule": "replicated", "redundant_experts": 3}}, "no multiple"),
        ({"placement": {"rule": "greedy", "rebalance_every": 8}}, "else no load drifts"),
        ({"load": {"law": "trace", "trace": "none.csv"}}, "none.csv"),
        ({"load": UNIFORM, "capacity": {"factor": 1, "absolute": 4}}, "not 2 of them"),
        ({"load": UNIFORM, "capacity": {"factor": 1, "scope": "group"}}, "needs group_tokens"),
        ({"load": UNIFORM, "gating": {"rule": "st_moe", "noise": 1}}, "noisy_topk and nested only"),
        ({"block_rows": 128, "capacity": {"factor": 1, "formula": "switch"}}, "pads buffers"),
        ({"capacity": {"factor": 1, "formula": "deepseek_v2", "pad": True}}, "no buffers to pad"),
        (
            {"capacity": {"factor": 1, "padding_tokens_occupy_capacity": True}},
            "needs padding_fraction",
        ),
    ],
)
def test_what_does_not_suit_is_told(
    tmp_path: Path, routing: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ScenarioError, match=message) as error:
        study(tmp_path, routing)
    assert error.value.problems[0].file.endswith("mine.yaml")


def test_groups_that_do_not_split_over_domains_are_no_silent_fallback(tmp_path: Path) -> None:
    placement = {"rule": "replicated_by_node", "redundant_experts": 32}
    path = write(tmp_path, "qwen3-235b-a22b", 32, {"load": LOGNORMAL_OF_R1, "placement": placement})
    with pytest.raises(ScenarioError, match="take replicated"):
        routing_study(load_scenario(path))


def test_training_has_no_redundant_experts(tmp_path: Path) -> None:
    path = write(tmp_path, "mixtral-8x7b", 8, {"placement": {"rule": "replicated"}})
    with pytest.raises(ScenarioError, match="moesim routing"):
        run(load_scenario(path))


def test_a_run_times_no_rebalancing(tmp_path: Path) -> None:
    placement = {"rule": "greedy", "share_correlation": 0.9, "rebalance_every": 4}
    path = write(tmp_path, "mixtral-8x7b", 8, {"load": LOGNORMAL_OF_R1, "placement": placement})
    with pytest.raises(ScenarioError, match="moesim routing"):
        run(load_scenario(path))


def test_a_dense_model_has_nothing_to_route(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no experts"):
        routing_study(load_scenario(write(tmp_path, "llama-2-7b", 1, {})))


def parts(found: Any, by: str) -> list[float]:
    return [row["dropped_fraction"] for row in found["drops"] if row["by"] == by]


@pytest.mark.parametrize("formula", ["megablocks", "gshard", "megatron"])
def test_the_study_says_who_is_dropped(tmp_path: Path, formula: str) -> None:
    """In order the last tokens; choice by choice or by weight the second choices."""
    capacity = {"factor": 1.0, "formula": formula, "group_tokens": 512}
    found = studied(tmp_path, "mixtral-8x7b", 8, {"load": UNIFORM, "capacity": capacity})
    along, choices = parts(found, "position"), parts(found, "choice")
    first, last = sum(along[:5]), sum(along[-5:])
    assert (last > 3 * first) == (formula != "megatron")
    assert (choices[1] > 5 * choices[0]) == (formula != "megablocks")
    (everything,) = (row for row in found["drops"] if row["by"] == "all")
    # whoever it is: as many as the closed form of uniform choices says
    assert everything["dropped_fraction"] == pytest.approx(
        found["expected_dropped_fraction"], rel=0.15
    )
    if formula == "megatron":
        return
    for row in found["drops"]:
        expected = row["expected_dropped_fraction"]
        assert row["dropped_fraction"] == pytest.approx(expected, abs=0.02)


def test_the_policy_moves_drops_but_not_their_number(tmp_path: Path) -> None:
    base = {"factor": 1.0, "group_tokens": 512}
    found = [
        studied(
            tmp_path, "mixtral-8x7b", 8,
            {"load": LOGNORMAL_OF_R1, "capacity": {**base, "policy": policy}},
        )
        for policy in ("probs", "position", "random")
    ]  # fmt: skip
    assert len({one["dropped_tokens"] for one in found}) == 1
    weights = [row["dropped_weight_fraction"] for one in found for row in one["drops"][:1]]
    assert weights[0] < min(weights[1:])  # what has the smallest weights goes first


def test_sequences_in_a_group_are_shown_one_on_the_other(tmp_path: Path) -> None:
    routing = {"load": UNIFORM, "capacity": {"factor": 1.0, "formula": "gshard"}}
    found = studied(tmp_path, "mixtral-8x7b", 8, routing)  # two sequences on a rank
    assert len(parts(found, "sequence")) == len(parts(found, "position")) == 20
    assert sum(parts(found, "sequence")) == pytest.approx(sum(parts(found, "position")), rel=0.01)


def test_padding_that_is_not_routed_takes_nothing(tmp_path: Path) -> None:
    """A quarter of 4,096 tokens: 3,072 of them choose two experts; 1,024 slots hold 768 in all."""
    capacity = {"factor": 1.0, "formula": "fairseq", "padding_fraction": 0.25}
    found = studied(tmp_path, "mixtral-8x7b", 8, {"capacity": capacity})
    assert found["assignments_per_token"] == 1.5
    assert (found["dropped_tokens"], found["capacity_waste_fraction"]) == (0, 0.25)
    assert found["routed_tokens"] == 32 * 8 * 3072 * 2
    made = run(load_scenario(tmp_path / "mine.yaml")).summary()["model"]
    whole = run(load_scenario(tmp_path / "mine.yaml", ["routing.capacity.padding_fraction=0"]))
    useful = made["metrics"]["model_flop_per_token"]
    assert made["routing"]["routed_tokens"] == 32 * 8 * 3072 * 2
    assert useful < whole.summary()["model"]["metrics"]["model_flop_per_token"]


def test_blocks_round_up_the_rows_of_an_expert(tmp_path: Path) -> None:
    """8,192 tokens, eight of 64 experts, even loads: 1,024 rows each, in blocks of 1,000 2,000."""
    sizes = {"sequence_length": 512, "micro_batch": 2}
    routing = {"block_rows": 1000}
    found = studied(tmp_path, "olmoe-1b-7b", 8, routing, **sizes)
    padding = found["block_padding"]
    assert padding["block_overhead_fraction"] == pytest.approx(976 / 1024)
    assert padding["half_block_overhead_fraction"] == pytest.approx(500 / 1024)
    assert found["padded_fraction"] == pytest.approx(976 / 2000)
    assert found["sent_rows"] == found["routed_tokens"]
    path = tmp_path / "mine.yaml"
    padded, plain = (
        run(
            load_scenario(path, [f"routing.block_rows={rows}", "training.cuda_graph=full"])
        ).summary()["model"]
        for rows in (1000, 1024)
    )
    assert padded["metrics"]["step_s"] > plain["metrics"]["step_s"]
    assert padded["metrics"]["model_flop_per_token"] == plain["metrics"]["model_flop_per_token"]


def test_blocks_of_uniform_loads_against_the_closed_form(tmp_path: Path) -> None:
    routing = {"load": UNIFORM, "block_rows": 128}
    found = studied(tmp_path, "olmoe-1b-7b", 8, routing)
    every = [row["block_overhead_fraction"] for row in found_layers(tmp_path)]
    expected = found["block_padding"]["expected_block_overhead_fraction"]
    error = stdev(every) / len(every) ** 0.5
    assert sum(every) / len(every) == pytest.approx(expected, abs=4 * error)


def found_layers(tmp_path: Path) -> Any:
    return tables(routing_study(load_scenario(tmp_path / "mine.yaml")))["layers"]


@pytest.mark.parametrize("mode", [{"absolute": 900}, {"fraction": 0.2}])
def test_capacities_without_a_factor_are_tried_at_others(
    tmp_path: Path, mode: Mapping[str, Any]
) -> None:
    """4,096 tokens, two of eight experts: the mean load is 1,024, and 0.25 of the tokens."""
    found = studied(tmp_path, "mixtral-8x7b", 8, {"load": UNIFORM, "capacity": mode})
    own = 900 / 1024 if "absolute" in mode else 0.8
    slots = {round(row["factor"], 6): row["slots"] for row in found["capacity"]}
    assert slots[round(own, 6)] == (900 if "absolute" in mode else 820)  # ceil(819.2)
    assert (slots[0.75], slots[1.0], slots[2.0]) == (768, 1024, 2048)
    by_factor = [row["dropped_fraction"] for row in found["capacity"]]
    assert by_factor == sorted(by_factor, reverse=True)


def test_what_is_expected_of_a_drawn_law_has_an_error(tmp_path: Path) -> None:
    routing = {"load": LOGNORMAL_OF_R1, "capacity": {"factor": 1.0}}
    found = studied(tmp_path, "olmoe-1b-7b", 8, routing)
    error = found["expected_drop_standard_error"]
    assert found["expected_drop_kind"] == "monte carlo"
    rows = found_layers(tmp_path)
    scatter = stdev(row["dropped_fraction"] for row in rows) / len(rows) ** 0.5
    off = abs(found["dropped_fraction"] - found["expected_dropped_fraction"])
    assert 0 < error < 0.01
    assert off < 4 * (error**2 + scatter**2) ** 0.5


def test_drops_are_a_table_and_a_picture(tmp_path: Path) -> None:
    made = study(tmp_path, {"load": UNIFORM, "capacity": {"factor": 1.0, "formula": "gshard"}})
    text = html(made)
    assert '<div id="drops"' in text
    assert "Who is dropped" in text
    assert {row["by"] for row in tables(made)["drops"]} == {
        "all", "position", "sequence", "choice"
    }  # fmt: skip
    console = Console(record=True, width=120)
    print_study(summary(made), console)
    shown = console.export_text()
    assert "last tokens of a group" in shown
    assert "choice 2" in shown


def test_the_page_is_drawn_offline(tmp_path: Path, chromium: str) -> None:
    placement = {"rule": "greedy"}
    made = study(tmp_path, {"load": LOGNORMAL_OF_R1, "placement": placement})
    folder = save(made, tmp_path / "out")
    assert {file.name for file in folder.iterdir()} == {
        "summary.json", "layers.csv", "experts.csv", "ranks.csv", "dispatch.csv", "capacity.csv",
        "byte_matrix.csv", "traffic.csv", "stragglers.csv", "touched.csv", "granularity.csv",
        "report.html",
    }  # fmt: skip
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=10000", "--dump-dom", (folder / "report.html").as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    for name in (
        "experts",
        "ranks",
        "in_order",
        "imbalance",
        "byte_matrix",
        "stragglers",
        "capacity",
    ):
        drawn = shown.stdout[shown.stdout.rindex(f'<div id="{name}"') :]
        assert 'class="main-svg"' in drawn[:20_000], name


def test_what_the_user_wrote_is_escaped(tmp_path: Path) -> None:
    path = write(tmp_path, "mixtral-8x7b", 8, {})
    text = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**text, "description": "<script>alert(1)</script>"}), "utf-8")
    assert "<script>alert(1)" not in html(routing_study(load_scenario(path)))
