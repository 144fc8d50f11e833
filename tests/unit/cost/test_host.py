"""Launches counted by hand, and what the device waits for."""

from dataclasses import replace

import pytest

from moesim.cost.host import Pace, host_parts, launches, pace
from moesim.cost.software import Software, load_software
from moesim.model.operators import AttentionCore, Gemm, GroupedGemm, Operator, Pointwise

NORM = Pointwise(
    name="ffn_norm", module="layernorm", input_from="residual", rows=8.0, elements_read=8.0,
    elements_written=8.0, elements_saved=8.0, dtype="bf16",
)  # fmt: skip
QKV = Gemm(name="qkv", module="qkv", input_from="layernorm", m=8, n=8, k=8, dtype="bf16")
EXPERTS = GroupedGemm(
    name="up", module="moe", input_from="dispatch", rows=(4, 0, 3, 1), n=8, k=8, dtype="bf16"
)
CORE = AttentionCore(
    name="attention", module="core_attn", input_from="qkv", sequences=1, queries=8, keys=8,
    own_keys=8, pairs=36.0, heads=1, kv_heads=1, qk_dim=8, v_dim=8, dtype="bf16", fused=False,
)  # fmt: skip
LAYER: list[Operator] = [NORM, QKV, CORE, EXPERTS]


def trainer(graph: str = "none") -> Software:
    known = load_software("megatron")
    return replace(known, host_per_kernel_s=10e-6, host_sync_s=50e-6, cuda_graph=graph)


def test_launches_by_hand() -> None:
    """Norm 1, product 1, unfused attention 4, three experts that have rows."""
    assert launches(LAYER, "none") == 1 + 1 + 4 + 3
    assert launches([replace(CORE, qk_products=3, v_products=2)], "none") == 6
    # all but the experts are one graph
    assert launches(LAYER, "attention_router") == 1 + 3
    assert launches(LAYER, "full") == 1


@pytest.mark.parametrize(
    ("device_s", "stops", "waits_s"),
    [(0.0, 0, 90e-6), (60e-6, 0, 30e-6), (200e-6, 0, 0.0), (200e-6, 1, 50e-6)],
)
def test_the_device_waits_for_the_slower_host(device_s: float, stops: int, waits_s: float) -> None:
    (found,) = host_parts([pace(LAYER, device_s, stops, trainer())], trainer())
    assert sum(part.seconds for part in found) == pytest.approx(waits_s)


def test_full_graphs_neither_launch_nor_stop() -> None:
    (found,) = host_parts([pace(LAYER, 0.0, 1, trainer("full"))], trainer("full"))
    assert sum(part.seconds for part in found) == 0.0


@pytest.mark.parametrize(
    ("blocks", "waits_s"),
    [
        # the host is 40 us behind in one block and 100 us ahead in the next: nothing waits
        ([Pace(90e-6, 50e-6), Pace(10e-6, 110e-6)], [0.0, 0.0]),
        # 40 + 20 us behind, 30 us ahead: 30 us in all, shared out 2 to 1
        ([Pace(90e-6, 50e-6), Pace(10e-6, 40e-6), Pace(30e-6, 10e-6)], [20e-6, 0.0, 10e-6]),
        # a stop of 50 us ends the stretch: what comes after cannot cover what came before
        ([Pace(90e-6, 50e-6, 1), Pace(10e-6, 110e-6)], [90e-6, 0.0]),
        ([Pace(10e-6, 110e-6), Pace(90e-6, 50e-6, 1)], [0.0, 50e-6]),
    ],
)
def test_the_host_runs_ahead_up_to_its_next_stop(blocks: list[Pace], waits_s: list[float]) -> None:
    found = host_parts(blocks, trainer())
    waits = [sum(part.seconds for part in parts) for parts in found]
    assert waits == pytest.approx(waits_s)
