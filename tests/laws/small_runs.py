"""Small scenarios for the laws: a model in YAML, a machine, a layout, changed key by key."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from moesim.cost.software import Software
from moesim.errors import ScenarioError
from moesim.hardware.device import Device
from moesim.hardware.topology import Tier, Topology
from moesim.spec.load import load_scenario
from moesim.study.outcome import Outcome
from moesim.study.resolve import Training, resolve
from moesim.study.simulate import simulate

SHIPPED = [
    file
    for file in sorted((Path(__file__).resolve().parents[2] / "scenarios").glob("*.yaml"))
    if not file.name.startswith("serving-")
]
"""The scenarios of training."""

MODEL: dict[str, Any] = {
    "name": "small-moe",
    "source": "made up for tests",
    "hidden": 512,
    "vocab": 4096,
    "layers": 8,
    "attention": {"kind": "gqa", "heads": 8, "kv_heads": 4, "head_dim": 64},
    "moe": {"num_experts": 8, "top_k": 2, "expert_width": 1024},
}

SCENARIO: dict[str, Any] = {
    "cluster": {"profile": "dgx-h100", "devices": 16},
    "parallel": {"ep": 8, "etp": 1},
    "training": {
        "sequence_length": 1024,
        "global_batch": 32,
        "micro_batch": 1,
        "cuda_graph": "full",
    },
}
"""Whole graphs: layers this small would show nothing but the host's launches."""


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` changed key by key by `above`; None removes a key."""
    result = dict(below)
    for key, value in above.items():
        inner = result.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        result[key] = merged(inner, value) if both and inner is not None else value
    return {key: value for key, value in result.items() if value is not None}


def write(
    folder: Path, changes: Mapping[str, Any] | None = None, model: Mapping[str, Any] | None = None
) -> Path:
    """Write a model and a scenario that uses it into `folder` (JSON is YAML); return the latter."""
    (folder / "model.yaml").write_text(json.dumps(merged(MODEL, model or {})), encoding="utf-8")
    scenario = merged({**SCENARIO, "model": "model.yaml"}, changes or {})
    path = folder / "small.yaml"
    path.write_text(json.dumps(scenario), encoding="utf-8")
    return path


def resolved(
    folder: Path, changes: Mapping[str, Any] | None = None, model: Mapping[str, Any] | None = None
) -> Training:
    """Return the small run, resolved."""
    return resolve(load_scenario(write(folder, changes, model)))


def outcome(
    folder: Path, changes: Mapping[str, Any] | None = None, model: Mapping[str, Any] | None = None
) -> Outcome:
    """Return what the small run comes to."""
    return simulate(resolved(folder, changes, model))


def without_curves(run: Training) -> Training:
    """Return `run` on closed forms alone, which can be calculated by hand."""
    return replace(run, software=replace(run.software, kernels=None))


def dense(width: int) -> dict[str, Any]:
    """Return the change of the model that has a dense FFN of `width` instead of experts."""
    return {"moe": None, "ffn": {"width": width}}


def random_choice(random: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return random changes of scenario and model; not every layout suits every model."""
    experts = random.choice([4, 8, 16])
    tp, pp = random.choice([1, 1, 2, 4]), random.choice([1, 1, 2, 4])
    vpp = random.choice([1, 2]) if pp > 1 else 1
    model: dict[str, Any] = {
        "hidden": random.choice([256, 512, 1024]),
        "layers": random.choice([8, 9, 12]) if vpp == 1 else 8,
        "moe": {"num_experts": experts, "top_k": random.choice([1, 2, 4]),
                "expert_width": random.choice([256, 1024])},
    }  # fmt: skip
    law = random.choice(["even", "uniform", "dirichlet", "lognormal"])
    load = {"law": law, **({"cv": 0.5} if law in ("dirichlet", "lognormal") else {})}
    capacity = random.choice([None, {"factor": 1.0}, {"factor": 1.25, "pad": True}])
    changes: dict[str, Any] = {
        "seed": random.randrange(1000),
        "cluster": {"devices": random.choice([16, 32])},
        "parallel": {
            "tp": tp, "pp": pp, "vpp": vpp, "ep": random.choice([1, 2, 4]), "etp": 1,
            "dispatcher": random.choice(["alltoall", "deepep", "allgather"]),
        },
        "training": {
            "sequence_length": random.choice([512, 2048]), "global_batch": 64,
            "recompute": random.choice(["none", "full", ["moe_act", "layernorm"]]),
            "optimizer": {"distributed": random.random() < 0.7},
        },
        "routing": {"load": load, **({"capacity": capacity} if capacity else {})},
    }  # fmt: skip
    return changes, model


def random_outcomes(folder: Path, count: int, seed: int) -> list[Outcome]:
    """Return `count` small random runs whose layout suits their model."""
    random, found = Random(seed), list[Outcome]()
    while len(found) < count:
        changes, model = random_choice(random)
        try:
            found.append(outcome(folder, changes, model))
        except ScenarioError:
            continue
    return found


def with_device(run: Training, **changes: float) -> Training:
    """Return `run` with other figures of the device."""
    cluster = run.cluster
    return replace(run, cluster=replace(cluster, device=replace(cluster.device, **changes)))  # type: ignore[arg-type]


def with_peak(run: Training, times: float) -> Training:
    """Return `run` on a device whose peaks are `times` as high."""
    device: Device = run.cluster.device
    peaks = tuple((name, rate * times) for name, rate in device.peak_flop_per_s)
    return replace(run, cluster=replace(run.cluster, device=replace(device, peak_flop_per_s=peaks)))


def with_network(run: Training, up: float = 1.0, out: float = 1.0) -> Training:
    """Return `run` on networks with `up` and `out` times the bandwidth and no other change."""
    topology: Topology = run.cluster.topology
    scale_out = faster(topology.scale_out, out) if topology.scale_out else None
    changed = replace(topology, scale_up=faster(topology.scale_up, up), scale_out=scale_out)
    return replace(run, cluster=replace(run.cluster, topology=changed))


def faster(tier: Tier, times: float) -> Tier:
    """Return `tier` with `times` its bandwidth."""
    return replace(
        tier,
        bandwidth_bytes_per_s=tier.bandwidth_bytes_per_s * times,
        pair_bandwidth_bytes_per_s=tier.pair_bandwidth_bytes_per_s * times,
    )


def without_latency(run: Training) -> Training:
    """Return `run` on networks whose steps add nothing, with kernels that launch at once."""
    topology = run.cluster.topology
    up = replace(topology.scale_up, latency_s=0.0)
    out = replace(topology.scale_out, latency_s=0.0) if topology.scale_out else None
    cluster = replace(run.cluster, topology=replace(topology, scale_up=up, scale_out=out))
    software: Software = replace(run.software, kernel_launch_s=0.0)
    return replace(run, cluster=cluster, software=software)
