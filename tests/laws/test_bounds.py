"""Law 7: no run is faster than its compute, memory, link or schedule allows; MFU is at most 1."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moesim.model.architecture import GroupedQueryAttention, Layer, MoeFfn, layers_of
from moesim.spec.load import load_scenario
from moesim.study.outcome import Outcome
from moesim.study.resolve import resolve
from moesim.study.simulate import simulate
from tests.laws.small_runs import SHIPPED, dense, outcome, random_outcomes


def _layers(made: Outcome) -> list[tuple[Layer, int]]:
    """Return every layer with the tokens of a micro-batch in its stack, encoder first."""
    architecture, spec = made.run.architecture, made.run.scenario.training
    sequence = spec.micro_batch * spec.sequence_length
    target = spec.micro_batch * (spec.target_length or spec.sequence_length)
    return [
        *((layer, sequence) for layer in layers_of(architecture.encoder)),
        *((layer, target) for layer in layers_of(architecture.decoder)),
    ]


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
    hidden = run.architecture.hidden
    products = sum(tokens * _attention_weights(layer, hidden) for layer, tokens in _layers(made))
    flop = 3 * 2 * products / run.layout.tp / run.layout.cp
    return _passes(made) * flop / max(rate for _, rate in run.cluster.device.peak_flop_per_s)


def _memory_s(made: Outcome) -> float:
    """The attention weights are read for the forward pass and for the gradient of the input."""
    run = made.run
    weight_bytes = 1 if run.scenario.training.precision == "fp8" else 2
    weights = sum(_attention_weights(layer, run.architecture.hidden) for layer, _ in _layers(made))
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
    rate = topology.scale_up.bandwidth_bytes_per_s
    if topology.scale_out is not None:
        rate += topology.scale_out.bandwidth_bytes_per_s
    choices = sum(
        layer.ffn.top_k * tokens for layer, tokens in _layers(made) if isinstance(layer.ffn, MoeFfn)
    )
    choices //= layout.cp * layout.tp
    rows = 4 * choices * kept * (layout.ep - 1) / layout.ep
    return _passes(made) * rows * run.architecture.hidden * _bytes_per_channel(made) / rate


def _bytes_per_channel(made: Outcome) -> float:
    """Two bytes; one where a dispatch may be fp8, though combines never are."""
    return 1.0 if made.run.layout.dispatch_dtype else 2.0


def _schedule_s(made: Outcome) -> float:
    """A stage does all its passes after the first has reached it and before the last leaves it.

    DualPipe: half of the micro-batches come each way, and beside each other passes share a device.
    """
    m, costs = made.run.micro_batches, made.stages
    if made.run.layout.schedule == "dualpipe":
        computed = [
            sum(
                part.seconds
                for one in (*cost.forward, *cost.backward)
                for part in one.parts
                if part.stream == "compute"
            )
            for cost in costs
        ]
        return m / 2 * max(computed)
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
    _check(simulate(resolve(load_scenario(name))))


def test_the_bounds_of_an_encoder_decoder_model_are_not_empty() -> None:
    """Switch-Base on 16 chips, by hand: 8 micro-batches of 16 sequences of 512 and 128 tokens.

    Attention 4 * 768^2 weights per layer, 24 layers, 3 products, 123 TFLOP/s; 6 layers with experts
    in each stack, one choice, no wider than 400 GB/s; every token but the dropped ones goes out.
    """
    made = simulate(resolve(load_scenario("switch-base-128-tpu-v3")))
    tokens = 8 * 16 * (512 + 128)
    assert _compute_s(made) == pytest.approx(3 * 2 * tokens * 12 * 4 * 768**2 / 123e12)
    kept = min(1 - load.dropped / load.routed for load in made.loads.values())
    sent = 4 * tokens * 6 * kept * 15 / 16 * 2 * 768
    assert _link_s(made) == pytest.approx(sent / 400e9)
    assert _schedule_s(made) > _link_s(made)


def test_random_runs_keep_to_the_bounds(tmp_path: Path) -> None:
    for made in random_outcomes(tmp_path, 100, seed=7):
        _check(made)


def test_dropped_tokens_are_no_useful_work(tmp_path: Path) -> None:
    # 1 % of the slots: nearly all assignments are dropped, the step is attention and router only
    model = {"moe": {"expert_width": 16384, "top_k": 8}, "layers": 2, "hidden": 2048, "vocab": 64}
    routing = {"capacity": {"factor": 0.01}}
    made = outcome(tmp_path, {"routing": routing, "training": {"sequence_length": 4096}}, model)
    assert made.metrics.mfu_fraction <= 1


def _layer_flop(share: float) -> float:
    """FLOP of a layer of the small model per token, `share` of its two choices being computed.

    Projections 512 x (512 + 2 * 256) and 512 x 512, two products of attention over (1024 + 1) / 2
    keys of 8 heads of 64, a router of 8, experts of 3 x 512 x 1024.
    """
    attention = 2 * 512 * (1024 + 512) + 2 * 2 * 512 * (1024 + 1) / 2
    return attention + 2 * 512 * 8 + share * 2 * (2 * 3 * 512 * 1024)


LOGITS_FLOP = 2.0 * 512 * 4096


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize(
    ("recompute", "again"),
    [
        ("none", lambda share: 0.0),
        ("full", _layer_flop),
        (["moe"], lambda share: _layer_flop(share) - _layer_flop(0) + 2 * 512 * 8),
        (["core_attn"], lambda share: 2 * 2 * 512 * (1024 + 1) / 2),
    ],
)
def test_utilisation_by_hand(
    tmp_path: Path, share: float, recompute: str | list[str], again: Callable[[float], float]
) -> None:
    """MFU: three times what is computed of the forward pass; HFU: what runs again on top of it."""
    changes = {
        "training": {"recompute": recompute},
        "routing": {"capacity": {"factor": share}},
    }
    made = outcome(tmp_path, changes)
    assert all(load.computed == share * load.routed for load in made.loads.values())
    once = 8 * _layer_flop(share) + LOGITS_FLOP
    peak = dict(made.run.cluster.device.peak_flop_per_s)["bf16"]
    flop_per_s = 32 * 1024 * 3 * once / made.metrics.step_s
    assert made.metrics.mfu_fraction == pytest.approx(flop_per_s / 16 / peak, rel=1e-9)
    ratio = made.metrics.hfu_fraction / made.metrics.mfu_fraction
    assert ratio == pytest.approx((3 * once + 8 * again(share)) / (3 * once), rel=1e-9)


@pytest.mark.parametrize("recompute", ["core_attn", "moe"])
def test_what_prediction_modules_compute_again_counts(tmp_path: Path, recompute: str) -> None:
    """Two modules: each one more layer, a projection from 1024 to 512, and logits."""
    model = {"mtp_layers": 2}
    metrics = outcome(tmp_path, {"training": {"recompute": [recompute]}}, model).metrics
    once = 10 * _layer_flop(1) + 2 * 2 * 1024 * 512 + 3 * LOGITS_FLOP
    attention = 2 * 2 * 512 * (1024 + 1) / 2
    experts = _layer_flop(1) - _layer_flop(0) + 2 * 512 * 8
    again = 10 * (attention if recompute == "core_attn" else experts)
    expected = (3 * once + again) / (3 * once)
    assert metrics.hfu_fraction / metrics.mfu_fraction == pytest.approx(expected, rel=1e-9)


def test_the_projection_of_a_prediction_module_runs_again_in_full(tmp_path: Path) -> None:
    """With full recomputation the block runs again from what enters it, projection included."""
    changes = {"training": {"recompute": "full"}}
    metrics = outcome(tmp_path, changes, {"mtp_layers": 2}).metrics
    projections = 2 * 2 * 1024 * 512
    once = 10 * _layer_flop(1) + projections + 3 * LOGITS_FLOP
    expected = (3 * once + 10 * _layer_flop(1) + projections) / (3 * once)
    assert metrics.hfu_fraction / metrics.mfu_fraction == pytest.approx(expected, rel=1e-9)


def test_dropped_tokens_are_not_computed_again_either(tmp_path: Path) -> None:
    """Experts make nearly all FLOP and drop nearly all tokens; counted in full, HFU passes 1."""
    model = {"moe": {"expert_width": 16384, "top_k": 8}, "layers": 2, "hidden": 2048, "vocab": 64}
    changes = {
        "routing": {"capacity": {"factor": 0.01}},
        "training": {"sequence_length": 4096, "recompute": "full"},
    }
    metrics = outcome(tmp_path, changes, model).metrics
    assert metrics.mfu_fraction < metrics.hfu_fraction <= 1


def test_fp32_runs_at_the_fp32_peak(tmp_path: Path) -> None:
    # nearly all FLOP are in the logits: 2 * 4096 * 2^17 per token against one narrow layer
    model = {**dense(64), "layers": 1, "hidden": 4096, "vocab": 2**17}
    changes = {"parallel": {"ep": 1}, "training": {"precision": "fp32"}}
    assert outcome(tmp_path, changes, model).metrics.mfu_fraction <= 1


def test_fp16_runs_where_there_is_no_bf16(tmp_path: Path) -> None:
    changes = {"cluster": {"profile": "v100-dgx2"}, "training": {"precision": "fp16"}}
    assert outcome(tmp_path, changes).metrics.mfu_fraction <= 1
