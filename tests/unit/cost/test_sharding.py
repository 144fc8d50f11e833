"""Full sharding: what is gathered, what hides, what a rank holds; worked out on paper."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moesim.cost.layout import FullSharding, groups
from moesim.cost.pricing import machine
from moesim.cost.sharding import (
    GATHERING,
    REDUCTION,
    ShardedPass,
    UnitTimes,
    sharded_backward,
    sharded_forward,
)
from moesim.cost.times import Part
from moesim.errors import ScenarioError
from moesim.hardware.groups import Group
from moesim.study.resolve import Training
from moesim.study.simulate import simulate
from tests.laws.small_runs import dense, outcome, resolved, without_curves

LAYER = 512 * (8 + 2 * 4 + 8) * 64 + 3 * 512 * 1024 + 2 * 512
"""Weights of a dense layer of the small model: q, k, v, output; a gated FFN; two norms."""
ENDS = 2 * 4096 * 512 + 512
"""Embedding, head and the last norm."""


def _cut(**changes: Any) -> ShardedPass:
    """Return an embedding, two layers with gathers of 3 and scatters of 4, and the logits."""
    layer, end = UnitTimes(gather_s=3.0, reduce_s=4.0), UnitTimes()
    rule = FullSharding(ranks=8, **changes)
    root = UnitTimes(gather_s=1.0, reduce_s=2.0)
    units = (end, layer, layer, end)
    return ShardedPass(rule=rule, root=root, units=units, stream="scale-out", rate=0.5)


def _work(*seconds: float) -> list[list[Part]]:
    return [[Part("compute", "work", one)] for one in seconds]


def _exposed(parts: list[Part]) -> list[tuple[str, float]]:
    return [(part.name, part.seconds) for part in parts if part.name != "work"]


def test_a_gather_hides_behind_the_layer_before_it() -> None:
    """The root stands alone; beside 2 s of embedding 1 of 3 s hides, beside 10 s all of them."""
    found = sharded_forward(_work(2, 10, 10, 1), _cut())
    assert _exposed(found) == [(GATHERING, 1.0), (GATHERING, 2.0)]


def test_transfers_slow_the_layer_that_runs_beside_them() -> None:
    """3 s at half speed take 6 s, in which a layer without 0.2 of the units loses 0.2 * 6 s."""
    cut = replace(_cut(), root=UnitTimes(), units=(UnitTimes(), UnitTimes(gather_s=3.0)), taken=0.2)
    found = sharded_forward(_work(10, 10), cut)
    ((name, seconds),) = _exposed(found)
    assert name == GATHERING
    assert seconds == pytest.approx(1.2)


def test_gathers_again_and_scatters_beside_the_backward_pass() -> None:
    """Backwards: logits 2 s, layers 10 and 4 s, embedding 1 s; the root was kept.

    Beside the logits 1 of 3 s of a gather hides. Beside 10 s the other gather does. Beside 4 s hide
    2 of the 4 s of the first scatter, beside 1 s 0.5 of the second; the root's 2 s stand alone.
    """
    found = sharded_backward(_work(2, 10, 4, 1), _cut())
    assert _exposed(found) == [
        (GATHERING, 2.0), (REDUCTION, 2.0), (REDUCTION, 3.5), (REDUCTION, 2.0),
    ]  # fmt: skip
    kept = sharded_backward(_work(2, 10, 4, 1), _cut(reshard=False))
    assert _exposed(kept) == [(REDUCTION, 2.0), (REDUCTION, 3.5), (REDUCTION, 2.0)]


def test_a_gather_and_a_scatter_share_what_hides() -> None:
    """Beside the second of three layers, 4 s: a gather of 3 and a scatter of 4, 2 of 7 s hide."""
    layer = UnitTimes(gather_s=3.0, reduce_s=4.0)
    cut = replace(_cut(), units=(layer, layer, layer), root=UnitTimes())
    found = sharded_backward(_work(6, 4, 8), cut)
    assert _exposed(found) == [
        (GATHERING, 3.0), (GATHERING, pytest.approx(3 * 5 / 7)),
        (REDUCTION, pytest.approx(4 * 5 / 7)), (REDUCTION, 4.0),
    ]  # fmt: skip


def test_nothing_hides_without_overlap() -> None:
    cut = _cut(prefetch=False, overlap_reduce=False)
    assert sum(s for _, s in _exposed(sharded_forward(_work(9, 9, 9, 9), cut))) == 1 + 3 + 3
    found = _exposed(sharded_backward(_work(9, 9, 9, 9), cut))
    assert sum(s for _, s in found) == 3 + 3 + 4 + 4 + 2


def test_transfers_on_the_same_network_hide_nothing() -> None:
    own = [[Part("compute", "work", 2.0), Part("scale-out", "work", 8.0)], *_work(10, 10, 10)]
    assert _exposed(sharded_forward(own, _cut())) == [(GATHERING, 1.0), (GATHERING, 2.0)]


def _run(folder: Path, parallel: dict[str, Any], **training: Any) -> Training:
    changes = {"parallel": {"ep": 1, **parallel}, "training": training}
    return without_curves(resolved(folder, changes, dense(1024)))


def test_shard_groups_are_inner_and_replicas_outer(tmp_path: Path) -> None:
    """16 devices, tp 2, cp 2: dp 4 in shard groups of 2; experts over ep 4 with etp 1."""
    degrees = {"tp": 2, "cp": 2, "fsdp": 2, "ep": 4, "etp": 1}
    layout = resolved(tmp_path, {"parallel": degrees}).layout
    found = groups(layout)
    assert found["fsdp"] == Group(4, 2)  # fsdp * cp ranks, tp apart
    assert found["replicas"] == Group(2, 8)
    assert found["expert_fsdp"] == Group(2, 4)  # tp * cp * fsdp / ep
    assert found["expert_replicas"] == Group(2, 8)


def test_gathered_bytes_by_hand(tmp_path: Path) -> None:
    """All weights of a layer come over the network of 8 H100 at 0.75 of 450 GB/s, bf16.

    t = 7/8 P / rate + 7 latencies + a launch; the forward pass of one micro-batch gathers the ends
    and 8 layers, without prefetch one after the other.
    """
    changes = {"cluster": {"devices": 8}, "parallel": {"ep": 1, "fsdp": 8},
               "training": {"overlap": {"param_gather": False}}}  # fmt: skip
    run = without_curves(resolved(tmp_path, changes, dense(1024)))
    topology = run.cluster.topology.scale_up
    rate = topology.bandwidth_bytes_per_s * run.software.scale_up_fraction
    fixed_s = 7 * topology.latency_s + run.software.kernel_launch_s
    expected_s = sum(7 / 8 * 2 * params / rate + fixed_s for params in [ENDS, *8 * [LAYER]])
    (forward,) = simulate(run).stages[0].forward
    found_s = sum(part.seconds for part in forward.parts if part.name == GATHERING)
    assert found_s == pytest.approx(expected_s)


def test_memory_by_hand(tmp_path: Path) -> None:
    """16 ranks hold 1/16 of 18 bytes per weight; two layers and the ends are whole, in bf16.

    Of one layer and of the ends there are whole gradients too.
    """
    total = 8 * LAYER + ENDS
    (stage,) = outcome(tmp_path, {"parallel": {"ep": 1, "fsdp": 16}}, dense(1024)).memory
    weights = (
        stage.attention_weights + stage.ffn_weights + stage.embedding_weights
        + stage.expert_weights
    )  # fmt: skip
    assert weights == pytest.approx(2 * total / 16)
    assert stage.gradients == pytest.approx(4 * total / 16)
    assert stage.optimizer_states == pytest.approx(12 * total / 16)
    assert stage.unsharded == 2 * (2 * ENDS + 3 * LAYER)
    changes = {"parallel": {"ep": 1, "fsdp": 16, "reshard_after_forward": False}}
    (kept,) = outcome(tmp_path, changes, dense(1024)).memory
    assert kept.unsharded == 2 * (2 * ENDS + 9 * LAYER)


def test_experts_are_sharded_over_their_own_replicas(tmp_path: Path) -> None:
    """16 devices, ep 8: an expert has 2 replicas, so a rank holds half of one of 8 experts."""
    (stage,) = outcome(tmp_path, {"parallel": {"fsdp": 16}}).memory
    assert stage.expert_weights == 2 * 8 * 3 * 512 * 1024 / 2


def test_replicas_of_shards_are_summed_once_per_step(tmp_path: Path) -> None:
    """Two nodes, each a shard group: a rank's eighth of the fp32 gradients crosses once, as a sum.

    Of two ranks in two domains a ring sends the whole payload in all: 2 (N-1)/N P / out.
    """
    run = _run(tmp_path, {"fsdp": 8})
    net = machine(run.cluster.device, run.cluster.topology, run.software, run.layout).networks
    assert (net["fsdp"].domains, net["replicas"].domains) == (1, 2)
    payload = 4 * (8 * LAYER + ENDS) / 8
    (cost,) = simulate(run).stages
    out = run.cluster.topology.scale_out
    assert out is not None
    ring_s = payload / net["replicas"].scale_out_bytes_per_s + 2 * out.latency_s
    assert cost.reduce_s == pytest.approx(ring_s + run.software.kernel_launch_s, rel=1e-3)
    assert cost.gather_s == 0.0
    assert simulate(_run(tmp_path, {"fsdp": 16})).stages[0].reduce_s == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parallel": {"fsdp": 3}}, "must divide dp = 16"),
        ({"parallel": {"fsdp": 4}}, "must divide tp [*] cp [*] fsdp = 4"),
        (
            {"parallel": {"fsdp": 8}, "training": {"optimizer": {"distributed": False}}},
            "shards the optimizer states too",
        ),
        ({"parallel": {"reshard_after_forward": False}}, "needs fsdp above 1"),
    ],
)
def test_senseless_sharding_says_what_would_do(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ScenarioError, match=message):
        resolved(tmp_path, changes)
