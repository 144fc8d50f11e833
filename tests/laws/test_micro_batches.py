"""Micro-batches with loads of their own: what stays, what waits, and how exact the times are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim import rng
from moesim.cost.pricing import machine
from moesim.cost.stage import joint_passes
from moesim.moe.assignment import Drawn, LayerLoad, Router, load_of
from moesim.moe.loads import LoadLaw
from moesim.moe.micro_batches import VariedLoad, affordable, draw_apart
from moesim.sim.training.schedules import Pair
from moesim.sim.training.step import simulate_step, work_of
from moesim.study import micro_batches as varied
from moesim.study.resolve import Training
from moesim.study.routing import moe_layers, router
from moesim.study.simulate import plan, simulate, stage_costs, stage_orders
from moesim.study.split import stage_chunks
from tests.laws.small_runs import merged, outcome, resolved

Changes = dict[str, Any]
LOGNORMAL: Changes = {"routing": {"load": {"law": "lognormal", "cv": 0.6}}}
DOMAINS: Changes = {
    "routing": {"load": {"law": "lognormal", "mixture": [
        {"cv": 0.5, "weight": 1}, {"cv": 1.0, "weight": 1}]}},
}  # fmt: skip
SCHEDULES: list[Changes] = [
    {"parallel": {"pp": 1}},
    {"parallel": {"pp": 4, "ep": 4}},
    {"parallel": {"pp": 2, "vpp": 2}, "training": {"overlap": {"expert_exchange": "batch"}}},
    {"parallel": {"pp": 2}, "training": {"overlap": {"expert_exchange": "shared_expert"}}},
    {"parallel": {"pp": 4, "schedule": "zb_h1", "ep": 4}},
    {"parallel": {"pp": 2, "vpp": 2, "schedule": "zb_v"}},
    {"parallel": {"pp": 2, "schedule": "dualpipe"},
     "training": {"overlap": {"expert_exchange": "batch"}}},
    {"parallel": {"pp": 2, "vpp": 2, "schedule": "dualpipe_v"},
     "training": {"overlap": {"expert_exchange": "batch"}}},
]  # fmt: skip
SHARED = {"moe": {"shared_expert_width": 1024}}


def _exact(run: Training) -> tuple[float, list[list[float]]]:
    """Return the step and the passes with every micro-batch priced by itself."""
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    stages, orders, layers = stage_chunks(run), stage_orders(run), list(moe_layers(run))
    loads: dict[int, list[LayerLoad]] = {}
    for layer in layers:
        name = f"{run.title}/routing/step 0/layer {layer.number}"
        routed = router(layer, run, 0)
        draws = affordable(routed, run.micro_batches, len(layers))
        drawn, placement = draw_apart(routed, draws, rng.stream(run.scenario.seed, name))
        loads[layer.number] = [load_of(routed, one, placement) for one in drawn]
    costs = [
        stage_costs(run, stages, {n: of[i % len(of)] for n, of in loads.items()}, on)
        for i in range(run.micro_batches)
    ]
    overlap = run.job.exchange_overlap == "batch"
    found: list[list[float]] = []
    for stage, order in enumerate(orders):
        found.append([])
        for item in order:
            if isinstance(item, Pair):
                one, two = item.forward, item.backward
                forward = costs[one.micro_batch][stage].forward[one.chunk]
                back = costs[two.micro_batch][stage].backward[two.chunk]
                found[-1].append(joint_passes((forward,), (back,), on, overlap)[0][0].seconds)
            else:
                found[-1].append(work_of(costs[item.micro_batch][stage], item).seconds)
    step = plan(run, orders, costs[0], tuple(map(tuple, found)))
    return simulate_step(step).seconds, found


@pytest.mark.parametrize("load", [LOGNORMAL, DOMAINS], ids=["one law", "domains"])
@pytest.mark.parametrize("changes", SCHEDULES, ids=str)
def test_times_between_knots_are_those_of_exact_pricing(
    tmp_path: Path, changes: Changes, load: Changes
) -> None:
    """A step within 0.5 %; a pass within 3 %, since its layers are not all at one height."""
    both = merged(
        merged(changes, load), {"training": {"sequence_length": 4096, "global_batch": 128}}
    )
    overlap = changes.get("training", {}).get("overlap", {}).get("expert_exchange")
    run = resolved(tmp_path, both, SHARED if overlap == "shared_expert" else None)
    found, (step_s, passes) = simulate(run), _exact(run)
    assert found.first.seconds == pytest.approx(step_s, rel=5e-3)
    for mine, exact in zip(found.durations, passes, strict=True):
        assert mine == pytest.approx(exact, rel=0.03)
        assert len({round(one, 9) for one in mine}) > 4


@pytest.mark.parametrize("changes", SCHEDULES, ids=str)
def test_equal_loads_are_the_step_of_one_load(tmp_path: Path, changes: Changes) -> None:
    """Experts that choose their tokens get as many in every micro-batch."""
    gate = {"routing": {"gating": {"rule": "expert_choice"}, "load": {"law": "uniform"}}}
    overlap = changes.get("training", {}).get("overlap", {}).get("expert_exchange")
    model = SHARED if overlap == "shared_expert" else None
    both = merged(changes, gate)
    apart = outcome(tmp_path, both, model)
    once = outcome(tmp_path, merged(both, {"routing": {"load": {"per": "step"}}}), model)
    assert apart.varied is not None
    assert apart.first.seconds == once.first.seconds
    assert apart.metrics == once.metrics
    assert [one.total for one in apart.memory] == pytest.approx([one.total for one in once.memory])


def test_the_fullest_rank_holds_the_others_up_at_each_exchange(tmp_path: Path) -> None:
    """Two ranks, two layers, two micro-batches of 2 x 1,024 tokens, two experts each chosen once.

    In micro-batch 0 rank 0 has 1,536 of layer 0's 2,048 rows and rank 1 has 1,536 of layer 1's:
    2,048 rows on each rank in all, as in micro-batch 1, which is even. Were ranks to meet once a
    pass, both would take as long; they meet at each exchange, so micro-batch 0 takes what two
    layers with 1,536 rows take, priced with that load in both.
    """
    changes = {
        "cluster": {"devices": 2},
        "parallel": {"ep": 2},
        "training": {"global_batch": 4},
        "routing": {"load": {"law": "uniform"}},
    }
    moe = {"num_experts": 2, "top_k": 1, "expert_width": 1024}
    run = resolved(tmp_path, changes, {"layers": 2, "moe": moe})
    assert run.micro_batches == 2
    even, first, second = (_load(rows) for rows in ((1024, 1024), (1536, 512), (512, 1536)))
    loads = {0: _varied((first, even)), 1: _varied((second, even))}
    on = machine(run.cluster.device, run.cluster.topology, run.software, run.layout)
    stages, orders = stage_chunks(run), stage_orders(run)
    low, high = (
        stage_costs(run, stages, varied.loads_at(loads, knot), on) for knot in ("low", "high")
    )
    costs = varied.varied_costs(run, stages, orders, varied=loads, knots=(low, high), on=on)
    passes = varied.durations(orders, costs)[0]
    skewed, flat = (stage_costs(run, stages, {0: load, 1: load}, on)[0] for load in (first, even))
    by_hand = [
        one.seconds
        for one in (skewed.forward[0], skewed.backward[0], flat.forward[0], flat.backward[0])
    ]
    assert [str(item) for item in orders[0]] == ["F0.0", "B0.0", "F1.0", "B1.0"]
    assert passes == pytest.approx(by_hand, rel=1e-12)
    assert by_hand[0] > 1.03 * by_hand[2]
    step_s = simulate_step(plan(run, orders, low, (passes,))).seconds
    rest_s = simulate_step(plan(run, orders, low, ((0.0,) * 4,))).seconds
    assert step_s >= sum(by_hand)
    assert step_s <= sum(by_hand) + rest_s


def _load(rows: tuple[int, int]) -> LayerLoad:
    routing = Router(
        tokens=2048, group_tokens=1024, experts=2, top_k=1, ranks=2, law=LoadLaw(law="uniform")
    )
    counts = np.array(rows, dtype=np.int64)
    shares = counts / counts.sum()
    return load_of(
        routing, Drawn(shares=shares, routed=counts, kept=counts, slots=0, fullest=max(rows)), None
    )


def _varied(loads: tuple[LayerLoad, LayerLoad]) -> VariedLoad:
    """Return a layer that is uneven in the first micro-batch and even in the second."""
    high, low = loads
    return VariedLoad(
        first=high, low=low, high=high, heights=np.array([1.0, 0.0]),
        rank_rows=np.array([high.rank_rows, low.rank_rows]),
        imbalances=np.array([high.rank_imbalance, low.rank_imbalance]),
        routed=4096, computed=4096, dropped=0, drawn=2,
    )  # fmt: skip


@pytest.mark.parametrize("changes", SCHEDULES, ids=str)
def test_no_load_makes_a_step_faster_than_forced_balance(tmp_path: Path, changes: Changes) -> None:
    overlap = changes.get("training", {}).get("overlap", {}).get("expert_exchange")
    model = SHARED if overlap == "shared_expert" else None
    even = outcome(tmp_path, changes, model).first.seconds
    for seed in (1, 2):
        for load in (LOGNORMAL, {"routing": {"load": {"law": "uniform"}}}):
            both = merged(merged(changes, load), {"seed": seed})
            assert outcome(tmp_path, both, model).first.seconds >= even * (1 - 1e-9)


def test_a_seed_says_all(tmp_path: Path) -> None:
    changes = merged({"parallel": {"pp": 2}}, LOGNORMAL)
    one, two = (outcome(tmp_path, changes) for _ in range(2))
    other = outcome(tmp_path, merged(changes, {"seed": 9}))
    assert one.first == two.first
    assert one.metrics == two.metrics
    assert one.first.seconds != other.first.seconds


def test_a_mean_over_steps_is_that_of_one_load_per_step(tmp_path: Path) -> None:
    """Without a pipeline a step is the sum of its micro-batches: in the mean both ways agree, and
    a step of many draws scatters less around it."""
    changes = merged(
        {"training": {"steps": 40, "global_batch": 128}}, {"routing": {"load": {"law": "uniform"}}}
    )
    apart = [step.seconds for step in outcome(tmp_path, changes).steps]
    once = merged(changes, {"routing": {"load": {"per": "step"}}})
    together = [step.seconds for step in outcome(tmp_path, once).steps]
    assert np.mean(apart) == pytest.approx(
        np.mean(together), abs=4 * np.std(together) / np.sqrt(40) + 1e-6
    )
    assert np.std(apart) < 0.7 * np.std(together)


def test_no_rank_holds_more_than_the_fullest_of_every_layer_would(tmp_path: Path) -> None:
    """The peak lies between that of even loads and that of a rank which is always the fullest."""
    changes: Changes = {"parallel": {"pp": 4, "ep": 4}}
    found = outcome(tmp_path, merged(changes, LOGNORMAL))
    even = outcome(tmp_path, changes)
    assert found.varied is not None
    rows = [one.rank_rows.max() / one.rank_rows.mean() for one in found.varied.values()]
    for mine, flat in zip(found.memory, even.memory, strict=True):
        assert flat.activations < mine.activations < max(rows) * flat.activations
