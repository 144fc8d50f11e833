"""Loads as scenarios ask for them: presets, trained balance, layers, domains, drift, replay."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.errors import ScenarioError
from moesim.study.report.routing_summary import summary
from moesim.study.resolve import resolve
from moesim.study.routing import draw, moe_layers, router
from moesim.study.routing_loads import dominating, step_weights
from moesim.study.routing_study import RoutingStudy, routing_study
from moesim.study.run import run
from tests.unit.study.routing_runs import TOKENS, scenario


def study(folder: Path, load: Mapping[str, Any], **training: Any) -> RoutingStudy:
    return routing_study(scenario(folder, {"load": load}, **training))


def cvs(made: RoutingStudy) -> list[float]:
    return [layer.router.law.cv for layer in made.layers]


def test_a_preset_is_a_law_with_a_source_that_reports_show(tmp_path: Path) -> None:
    made = study(tmp_path, {"preset": "deepseek_r1_inference"})
    assert {layer.router.law.law for layer in made.layers} == {"lognormal"}
    summed = summary(made)
    assert summed["scenario"]["routing"]["load"]["law"] == "lognormal"
    assert "tech_blog/blog4" in " ".join(summed["load"])
    page = run(scenario(tmp_path, {"load": {"preset": "olmoe_inference"}})).html()
    assert "allenai/OLMoE" in page


def test_trained_balance_has_the_spread_of_the_published_table(tmp_path: Path) -> None:
    """Shazeer et al. 2017, table 6: weights 1 and 1, CV of the load 0.02."""
    made = study(tmp_path, {"balancing": {"rule": "shazeer", "w_importance": 1, "w_load": 1}})
    assert cvs(made) == [0.02] * 32
    assert "table 6" in " ".join(summary(made)["load"])
    flat = study(tmp_path, {"law": "lognormal", "balancing": {"rule": "deepseek_v3"}})
    assert cvs(flat) == [0.0] * 32
    switch = study(tmp_path, {"balancing": {"rule": "switch", "alpha": 0.01}})
    assert "at most" in " ".join(summary(switch)["load"])


def test_layers_take_their_spread_from_a_list_in_turn(tmp_path: Path) -> None:
    made = study(tmp_path, {"law": "dirichlet", "cv": [0.1, 0.5, 1]})
    assert cvs(made)[:7] == [0.1, 0.5, 1.0, 0.1, 0.5, 1.0, 0.1]


def test_a_power_law_ranges_over_the_tokens_of_the_batch(tmp_path: Path) -> None:
    law = study(tmp_path, {"law": "power_law", "exponent": 1.2}).layers[0].router.law
    assert (law.exponent, law.tokens) == (1.2, TOKENS)


def two_domains(folder: Path, layers: int = 2) -> str:
    """Domain low has the experts 0 to 3 alone, domain high 4 to 7; two sequences of 100 tokens."""
    order = np.argsort(np.random.default_rng(0).random((2, layers, 200, 4)), axis=3)[..., :2]
    low, high, lengths = order[0], order[1] + 4, np.array([100, 100])
    np.savez(
        folder / "two.npz", low_ids=low, low_seq_len=lengths, high_ids=high, high_seq_len=lengths
    )
    return "two.npz"


def mix(folder: Path, weights: tuple[float, float] = (1, 1), **more: Any) -> dict[str, Any]:
    named = zip(("low", "high"), weights, strict=True)
    low, high = ({"domain": name, "weight": weight} for name, weight in named)
    return {"law": "trace", "trace": two_domains(folder), "mixture": [low, high], **more}


@pytest.mark.parametrize("detail", ["shares", "replay"])
def test_a_sequence_takes_its_domain_through_all_layers(tmp_path: Path, detail: str) -> None:
    """Eight sequences of 512 tokens and two choices: the low half has a multiple of 1,024."""
    made = study(tmp_path, mix(tmp_path, detail=detail))
    low = {int(layer.drawn.routed[:4].sum()) for layer in made.layers}
    assert len(low) == 1
    assert low.pop() % 1024 == 0
    assert all(int(layer.drawn.routed.sum()) == 2 * TOKENS for layer in made.layers)
    assert all(layer.expected and layer.expected.fraction == 0.0 for layer in made.layers)


def test_domains_of_a_law_keep_their_shares_from_step_to_step(tmp_path: Path) -> None:
    parts = [{"cv": 0.5, "weight": 1}, {"cv": 1.0, "weight": 3}]
    made = resolve(scenario(tmp_path, {"load": {"law": "lognormal", "mixture": parts}}))
    layer = next(moe_layers(made))
    first, later = (router(layer, made, step).mixed for step in (0, 5))
    assert first is not None
    assert later is not None
    assert (first.mixture.shares == later.mixture.shares).all()
    assert first.mixture.weights == (0.25, 0.75)
    assert first.composition != later.composition


def test_the_dominating_domain_drifts_from_step_to_step(tmp_path: Path) -> None:
    """Dominance 1: all sequences of a step are of one domain, and both come up in 30 steps."""
    load = mix(tmp_path, drift={"dwell_steps": 3})
    asked = scenario(tmp_path, {"load": load}, steps=30)
    order = [dominating(asked, step) for step in range(30)]
    assert set(order) == {0, 1}
    changes = sum(a != b for a, b in pairwise(order))
    assert changes < 15  # a third of the steps draw anew, half of those the other domain
    assert step_weights(asked, 0) == tuple(float(n == order[0]) for n in range(2))
    made = resolve(asked)
    for step in (0, order.index(1 - order[0])):
        loads = draw(made, step)
        # one domain has half of the experts: the fullest of two-expert ranks has twice the mean
        assert all(load.rank_imbalance > 1.9 for load in loads.values())


def test_a_drift_may_leave_a_part_to_the_weights(tmp_path: Path) -> None:
    load = mix(tmp_path, (3, 1), drift={"dwell_steps": 1e6, "dominance": 0.5})
    asked = scenario(tmp_path, {"load": load})
    assert sorted(step_weights(asked, 0)) in ([0.125, 0.875], [0.375, 0.625])


def test_replayed_tokens_are_those_of_the_trace(tmp_path: Path) -> None:
    """Whole rounds through a trace have its counts times the rounds, wherever they start."""
    generator = np.random.default_rng(1)
    ids = np.argsort(generator.random((3, TOKENS // 4, 8)), axis=2)[..., :2].astype(np.uint8)
    np.savez(tmp_path / "one.npz", t_ids=ids, t_seq_len=np.array([600, TOKENS // 4 - 600]))
    made = study(tmp_path, {"law": "trace", "trace": "one.npz", "detail": "replay"})
    # routed as one group of all tokens: rounds are whole then
    wide = {"load": {"law": "trace", "trace": "one.npz", "detail": "replay"},
            "capacity": {"factor": 4, "scope": "world"}}  # fmt: skip
    world = routing_study(scenario(tmp_path, wide))
    for place, layer in enumerate(world.layers):
        counts = np.bincount(ids[place % 3].ravel(), minlength=8)
        assert layer.drawn.routed.tolist() == (4 * counts).tolist()
    assert [layer.drawn.routed.sum() for layer in made.layers] == [2 * TOKENS] * 32


def test_routed_experts_of_serving_engines_are_traces(tmp_path: Path) -> None:
    """32 layers of which each token takes expert 5 and another one."""
    generator = np.random.default_rng(2)
    other = generator.integers(0, 5, size=(300, 32))
    ids = np.stack([np.full_like(other, 5), other], axis=2)
    np.save(tmp_path / "dump.npy", ids.astype(np.int32))
    rows = [json.dumps({"routed_experts": part.tolist()}) for part in (ids[:100], ids[100:])]
    (tmp_path / "dump.jsonl").write_text("\n".join(rows), encoding="utf-8")
    for name in ("dump.npy", "dump.jsonl"):
        made = study(tmp_path, {"law": "trace", "trace": name})
        for layer in made.layers:
            assert int(layer.drawn.routed[5]) == TOKENS
            assert int(layer.drawn.routed[6:].sum()) == 0


SHAZEER = {"rule": "shazeer", "w_importance": 5, "w_load": 7}
PARTS = [{"cv": 1, "weight": 1}, {"cv": 2, "weight": 1}]


@pytest.mark.parametrize(
    ("load", "message"),
    [
        ({"preset": "olmoe_inference", "law": "uniform"}, "says the law; leave law out"),
        ({"preset": "olmoe"}, "must be one of"),
        ({"balancing": SHAZEER}, "no published spread"),
        ({"balancing": {"rule": "switch", "alpha": 0.1}}, "alpha = 1e-2 only"),
        ({"balancing": {"rule": "switch"}}, "needs alpha"),
        ({"balancing": {"rule": "deepseek_v3", "alpha": 0.1}}, "switch only"),
        ({"law": "uniform", "balancing": {"rule": "deepseek_v3"}}, "takes no balancing"),
        ({"law": "lognormal", "cv": 1, "balancing": {"rule": "deepseek_v3"}}, "in its place"),
        ({"law": "zipf"}, "needs exponent"),
        ({"law": "uniform", "exponent": 1}, "takes no exponent"),
        ({"law": "dirichlet", "mixture": PARTS}, "needs law lognormal or trace"),
        ({"law": "lognormal", "mixture": PARTS[:1]}, "two domains at least"),
        ({"law": "lognormal", "mixture": [{"weight": 1}] * 2}, "has cv and weight"),
        ({"law": "lognormal", "cv": 1, "drift": {"dwell_steps": 2}}, "drift needs mixture"),
    ],
)  # fmt: skip
def test_what_does_not_suit_is_told(tmp_path: Path, load: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        study(tmp_path, load)


def test_a_domain_that_the_trace_lacks_is_named_at_its_key(tmp_path: Path) -> None:
    load = mix(tmp_path)
    load["mixture"][1]["domain"] = "hihg"
    with pytest.raises(ScenarioError, match="Did you mean 'high'") as error:
        study(tmp_path, load)
    assert error.value.problems[0].path == "routing.load.mixture.1.domain"


def test_domains_bring_their_choices_with_them(tmp_path: Path) -> None:
    routing = {"load": mix(tmp_path), "gating": {"rule": "softmax_topk"}}
    with pytest.raises(ScenarioError, match="leave the rule out"):
        routing_study(scenario(tmp_path, routing))
