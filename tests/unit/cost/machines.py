"""A device and software in round numbers, for calculations by hand."""

from dataclasses import replace
from typing import Any

from moesim.cost.collectives import Network
from moesim.cost.layout import Layout
from moesim.cost.software import load_software
from moesim.hardware.device import Device

IDEAL = replace(
    load_software("megatron"),
    gemm_fraction=1.0,
    grouped_gemm_fraction=1.0,
    attention_fraction=1.0,
    memory_fraction=1.0,
    scale_up_fraction=1.0,
    scale_out_fraction=1.0,
    overlapped_fraction=1.0,
    kernel_launch_s=0.0,
    reserved_memory_bytes=0.0,
    fragmentation_fraction=0.0,
)
"""Software that reaches every datasheet figure."""

ROUND = Device(
    name="round",
    vendor="nobody",
    description="1 PFLOP/s bf16, 2 PFLOP/s fp8, 1 TB/s, 100 GB",
    peak_flop_per_s=(("fp32", 1e14), ("bf16", 1e15), ("fp8", 2e15)),
    memory_capacity_bytes=1e11,
    memory_bandwidth_bytes_per_s=1e12,
)


def layout(**degrees: int) -> Layout:
    """Return a layout of these degrees, all others 1."""
    cut = dict.fromkeys(("tp", "pp", "vpp", "cp", "ep", "etp", "dp"), 1) | degrees
    return Layout(sequence_parallel=True, schedule="1f1b", dispatcher="alltoall", **cut)  # type: ignore[arg-type]


def net(domains: int, members: int, **changes: Any) -> Network:
    """Return `domains` domains of `members` ranks: 100 bytes/s inside, 10 between, no latency."""
    plain = Network(
        size=domains * members, domains=domains, members=members, kind="switch",
        fabric_bytes_per_s=10.0, scale_up_bytes_per_s=100.0, scale_out_bytes_per_s=10.0,
        scale_up_latency_s=0.0, scale_out_latency_s=0.0,
    )  # fmt: skip
    return replace(plain, **changes)
