"""Law 7: no run is faster than its compute, memory, link or schedule allows; MFU is at most 1."""

from pathlib import Path

import pytest

from moesim.model.architecture import GroupedQueryAttention, Layer, MoeFfn, layers_of
from moesim.spec.load import load_scenario
from moesim.study.outcome import Outcome
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate
from tests.laws.small_runs import SHIPPED, dense, outcome, random_outcomes


def _layers(made: Outcome) -> list[Layer]:
    return list(layers_of(made.run.architecture.decoder))


def _check(made: Outcome) -> None:
    step_s = min(step.seconds for step in made.steps)
    for bound in (_compute_s(made), _memory_s(made), _link_s(made), _schedule_s(made)):
        assert bound <= step_s * (1 + 1e-9)
    assert 0 < made.metrics.mfu_fraction <= made.metrics.hfu_fraction * (1 + 1e-12)
    assert made.metrics.hfu_fraction <= 1
    parts_s = sum(share.seconds for share in made.breakdown)
    assert parts_s == pytest.approx(made.steps[0].seconds, rel=1e-6)


def _passes(made: Outcome) -> float:
    """Micro-batches over stages: some stage has at least the mean of the layers."""
    return made.run.micro_batches / made.run.layout.pp


def _compute_s(made: Outcome) -> float:
    """Projections of the attention, three products each, at the datasheet's peak."""
    run = made.run
    tokens = run.scenario.training.micro_batch * run.scenario.training.sequence_length
    weights = sum(_attention_weights(layer, run.architecture.hidden) for layer in _layers(made))
    flop = 3 * 2 * tokens * weights / run.layout.tp / run.layout.cp
    return _passes(made) * flop / max(rate for _, rate in run.cluster.device.peak_flop_per_s)


def _memory_s(made: Outcome) -> float:
    """The attention weights are read for the forward pass and for the gradient of the input."""
    run = made.run
    weight_bytes = 1 if run.scenario.training.precision == "fp8" else 2
    weights = sum(_attention_weights(layer, run.architecture.hidden) for layer in _layers(made))
    moved = 2 * weight_bytes * weights / run.layout.tp
    return _passes(made) * moved / run.cluster.device.memory_bandwidth_bytes_per_s


def _link_s(made: Outcome) -> float:
    """Each assignment leaves its rank with probability (ep - 1) / ep.

    One copy per assignment, kept ones only; dispatch and combine, forward and backward; all of
    the rank's links together.
    """
    run = made.run
    layout, topology = run.layout, run.cluster.topology
    if layout.dispatcher != "alltoall" or layout.ep == 1:
        return 0.0
    kept = min((1 - load.dropped / load.routed for load in made.loads.values()), default=1.0)
    tokens = run.scenario.training.micro_batch * run.scenario.training.sequence_length
    tokens //= layout.cp * layout.tp
    rate = topology.scale_up.bandwidth_bytes_per_s
    if topology.scale_out is not None:
        rate += topology.scale_out.bandwidth_bytes_per_s
    choices = sum(layer.ffn.top_k for layer in _layers(made) if isinstance(layer.ffn, MoeFfn))
    rows = 4 * tokens * choices * kept * (layout.ep - 1) / layout.ep
    return _passes(made) * rows * 2 * run.architecture.hidden / rate


def _schedule_s(made: Outcome) -> float:
    """A stage does all its passes after the first has reached it and before the last leaves it."""
    m, costs = made.run.micro_batches, made.stages
    first = [(cost.forward[0].seconds, cost.backward[0].seconds) for cost in costs]
    bounds = []
    for stage, cost in enumerate(costs):
        own = sum(one.seconds for one in (*cost.forward, *cost.backward))
        before = sum(forward + backward for forward, backward in first[:stage])
        bounds.append(before + m * own + cost.update_s)
    return max(bounds)


def _attention_weights(layer: Layer, hidden: int) -> float:
    attention = layer.attention
    if not isinstance(attention, GroupedQueryAttention):
        return 0.0
    queries = attention.heads * attention.head_dim
    return hidden * (2 * queries + 2 * attention.kv_heads * attention.head_dim)


@pytest.mark.parametrize("name", [path.stem for path in SHIPPED])
def test_shipped_scenarios_keep_to_the_bounds(name: str) -> None:
    run = resolve(load_scenario(name))
    if run.architecture.encoder:
        made = simulate(run)
        assert made.metrics.hfu_fraction <= 1
        return
    _check(simulate(run))


def test_random_runs_keep_to_the_bounds(tmp_path: Path) -> None:
    for made in random_outcomes(tmp_path, 100, seed=7):
        _check(made)


def test_dropped_tokens_are_no_useful_work(tmp_path: Path) -> None:
    # 1 % of the slots: nearly all assignments are dropped, the step is attention and router only
    model = {"moe": {"expert_width": 16384, "top_k": 8}, "layers": 2, "hidden": 2048, "vocab": 64}
    routing = {"capacity": {"factor": 0.01}}
    made = outcome(tmp_path, {"routing": routing, "training": {"sequence_length": 4096}}, model)
    assert made.metrics.mfu_fraction <= 1


def test_fp32_runs_at_the_fp32_peak(tmp_path: Path) -> None:
    # nearly all FLOP are in the logits: 2 * 4096 * 2^17 per token against one narrow layer
    model = {**dense(64), "layers": 1, "hidden": 4096, "vocab": 2**17}
    changes = {"parallel": {"ep": 1}, "training": {"precision": "fp32"}}
    assert outcome(tmp_path, changes, model).metrics.mfu_fraction <= 1


def test_fp16_runs_where_there_is_no_bf16(tmp_path: Path) -> None:
    changes = {"cluster": {"profile": "v100-dgx2"}, "training": {"precision": "fp16"}}
    assert outcome(tmp_path, changes).metrics.mfu_fraction <= 1
