"""Law 8: one expert costs what the dense twin costs; k = E costs E dense networks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moesim.cost.pricing import machine, price
from moesim.cost.software import Software
from moesim.cost.times import StageCost
from moesim.cost.work import blocks
from moesim.model.architecture import DenseFfn, Layer, MoeFfn
from moesim.model.backward import backward
from moesim.model.flop import layer_flop, training_flop_per_token
from moesim.model.named import load_model
from moesim.model.parameters import active_params, ffn_params, total_params
from moesim.model.shapes import Shape
from moesim.study.baseline import dense_twin
from moesim.study.outcome import Outcome
from moesim.study.resolve import Training, training
from moesim.study.simulate import simulate
from moesim.study.split import stage_chunks
from tests.laws.small_runs import dense, outcome, random_outcomes, resolved, write

ONE_EXPERT: dict[str, Any] = {"moe": {"num_experts": 1, "top_k": 1, "expert_width": 4096}}


def _alike(run: Training) -> Training:
    """Return `run` where any product takes what its FLOP say: no curves, launches or waves."""
    software: Software = replace(run.software, kernel_launch_s=0.0, kernels=None)
    cluster = replace(run.cluster, device=replace(run.cluster.device, compute_units=None))
    return replace(run, software=software, cluster=cluster)


def _seconds(made: Outcome, *names: str) -> float:
    return sum(share.seconds for share in made.breakdown if share.name in names)


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_one_expert_costs_what_the_dense_twin_costs(tmp_path: Path, tp: int) -> None:
    """The rest is the router and the two permutations, which read and write each row once.

    Permutations, forward and backward: 4 * (2 rows of 2 * hidden bytes) per token, layer and
    micro-batch, at the memory rate, for the 1 / tp of the tokens that a rank holds.
    """
    parallel = {"parallel": {"tp": tp, "ep": 1, "etp": tp}}
    moe = simulate(_alike(resolved(tmp_path, parallel, ONE_EXPERT)))
    twin = simulate(_alike(resolved(tmp_path, parallel, dense(4096))))
    rate = moe.run.cluster.device.memory_bandwidth_bytes_per_s * moe.run.software.memory_fraction
    permutations_s = 8 * moe.run.micro_batches * 4 * 2 * (1024 / tp) * (2 * 512) / rate
    experts_s = _seconds(moe, "experts") - permutations_s
    assert experts_s == pytest.approx(_seconds(twin, "dense FFN"), rel=1e-9)
    for name in ("attention", "attention projections", "norms", "logits", "embedding"):
        assert _seconds(moe, name) == pytest.approx(_seconds(twin, name), rel=1e-9)
    transfers = ("tensor parallel", "expert tensor parallel")
    assert _seconds(moe, *transfers) == pytest.approx(_seconds(twin, *transfers), rel=1e-9)


def test_one_expert_costs_what_the_dense_twin_costs_by_curves(tmp_path: Path) -> None:
    """By fitted curves too all that one expert adds is the router and the two permutations."""
    moe = simulate(resolved(tmp_path, {"parallel": {"ep": 1}}, ONE_EXPERT))
    twin = simulate(resolved(tmp_path, {"parallel": {"ep": 1}}, dense(4096)))
    assert moe.run.software.kernels is not None
    on = machine(moe.run.cluster.device, moe.run.cluster.topology, moe.run.software, moe.run.layout)
    (chunk,), loads = stage_chunks(moe.run)[0], moe.loads
    forward = [op for block in blocks(moe.run.job, chunk, loads) for op in block.operators]
    moved = [op for op in forward if op.name in ("permute", "unpermute")]
    assert len(moved) == 16
    permutations_s = moe.run.micro_batches * sum(
        price(one, on).seconds for op in moved for one in (op, *backward(op))
    )
    experts_s = _seconds(moe, "experts") - permutations_s
    assert experts_s == pytest.approx(_seconds(twin, "dense FFN"), rel=1e-9)
    for name in ("attention", "attention projections", "norms", "logits", "embedding"):
        assert _seconds(moe, name) == pytest.approx(_seconds(twin, name), rel=1e-9)


def test_one_expert_has_the_parameters_and_flop_of_the_dense_twin(tmp_path: Path) -> None:
    moe = resolved(tmp_path, {"parallel": {"ep": 1}}, ONE_EXPERT).architecture
    twin = resolved(tmp_path, {"parallel": {"ep": 1}}, dense(4096)).architecture
    router = 8 * 512  # eight layers, one logit each from 512 channels
    assert total_params(moe) == total_params(twin) + router == active_params(moe)
    assert training_flop_per_token(moe, 1024) == pytest.approx(
        training_flop_per_token(twin, 1024) + 3 * 2 * router, rel=1e-12
    )


def test_all_of_e_experts_cost_e_dense_networks() -> None:
    attention = load_model("mixtral-8x7b").decoder[0].layer.attention
    shape = Shape(sequences=2, length=128)
    for experts in (1, 3, 8, 64):
        moe = MoeFfn(num_experts=experts, top_k=experts, expert_width=96)
        one = DenseFfn(width=96)
        router = experts * 512
        assert ffn_params(moe, 512) == experts * ffn_params(one, 512) + router
        with_moe = layer_flop(Layer(attention=attention, ffn=moe), 512, shape)
        with_one = layer_flop(Layer(attention=attention, ffn=one), 512, shape)
        # a gated network is three matrices of 512 x 96, two FLOP per weight and token
        network = 2 * 256 * 3 * 512 * 96
        rest = with_one - network
        assert with_moe == pytest.approx(rest + experts * network + 2 * 256 * router, rel=1e-12)


def test_all_of_e_experts_take_the_time_of_e_dense_networks(tmp_path: Path) -> None:
    """Five experts all used are a dense network of five times the width, but for the rows.

    Compute is the same; only the permutations grow. A token becomes 5 rows, which are sorted by
    expert and back again since a rank has several experts: per token 1 row read and 5 written, two
    times 5 and 5, then 5 and 1; backward the same.
    """
    model = {"moe": {"num_experts": 5, "top_k": 5, "expert_width": 16384}, "hidden": 4096}
    changes = {"parallel": {"ep": 1}, "training": {"sequence_length": 4096}}
    run = _alike(resolved(tmp_path, changes, model))
    # several experts are a grouped product, here as fast as a plain one
    fraction = run.software.gemm_fraction
    run = replace(run, software=replace(run.software, grouped_gemm_fraction=fraction))
    moe = simulate(run)
    twin = simulate(_alike(resolved(tmp_path, changes, {"hidden": 4096, **dense(5 * 16384)})))
    rate = moe.run.cluster.device.memory_bandwidth_bytes_per_s * moe.run.software.memory_fraction
    rows_per_token = 2 * (2 * (1 + 5) + 2 * (5 + 5))
    moved = 8 * moe.run.micro_batches * rows_per_token * 4096 * (2 * 4096)
    expected_s = _seconds(twin, "dense FFN") + moved / rate
    assert _seconds(moe, "experts") == pytest.approx(expected_s, rel=1e-9)


def test_the_dense_twin_has_what_it_is_named_for() -> None:
    moe = load_model("mixtral-8x7b")
    router = 32 * 8 * 4096  # layers, experts, hidden
    assert total_params(dense_twin(moe, "active_params")) == active_params(moe) - router
    assert total_params(dense_twin(moe, "total_params")) == total_params(moe) - router
    # a unit of width is three weights per channel; eight logits are 8 / 3 of one
    same = training_flop_per_token(moe, 4096)
    assert training_flop_per_token(dense_twin(moe, "flop"), 4096) == pytest.approx(same, rel=1e-4)


def test_the_dense_twin_keeps_shared_experts_and_dense_layers() -> None:
    moe = load_model("deepseek-v3")
    twin = dense_twin(moe, "active_params")
    assert not twin.is_moe
    assert twin.num_layers == 61
    widths = [run.layer.ffn.width for run in twin.decoder if isinstance(run.layer.ffn, DenseFfn)]
    assert widths == [18432, (8 + 1) * 2048]  # three dense layers, then 8 routed and 1 shared


def test_the_twin_of_equal_flop_can_be_cut_by_tp(tmp_path: Path) -> None:
    run = resolved(tmp_path, {"parallel": {"tp": 2, "ep": 8}})
    twin = dense_twin(run.architecture, "flop")
    parallel = run.scenario.parallel.model_copy(update={"ep": 1, "etp": 1})
    training(run.scenario, twin, run.cluster, run.software, parallel)


def test_stage_costs_of_equal_stages_are_equal(tmp_path: Path) -> None:
    made = outcome(tmp_path, {"parallel": {"pp": 4, "ep": 4}})
    middle: tuple[StageCost, ...] = made.stages[1:3]
    assert middle[0] == middle[1]
    assert write(tmp_path).is_file()


def test_drops_and_pads_cost_what_is_computed(tmp_path: Path) -> None:
    """Random runs: a step with the same layout but no capacity is never faster."""
    checked = 0
    for made in random_outcomes(tmp_path, 30, seed=11):
        spec = made.run.scenario.routing
        if spec.capacity is None or spec.capacity.pad:
            continue
        routing = spec.model_copy(update={"capacity": None})
        scenario = made.run.scenario.model_copy(update={"routing": routing})
        dropless = simulate(replace(made.run, scenario=scenario))
        assert made.metrics.step_s <= dropless.metrics.step_s * (1 + 1e-12)
        checked += 1
    assert checked >= 5
