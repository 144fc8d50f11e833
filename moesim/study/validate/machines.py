"""From the words for a machine in a case file to a shipped cluster profile."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from moesim.hardware.profiles import cluster_names, load_cluster
from moesim.hardware.topology import Cluster
from moesim.spec.cases import Case, CaseFile
from moesim.study.validate.options import Reading
from moesim.study.validate.skipped import SkippedError

_PROFILES: tuple[tuple[str, str], ...] = (
    (r"gb300", "gb300-nvl72"),
    (r"gb200", "gb200-nvl72"),
    (r"gh200", "alps-gh200"),
    (r"b300", "dgx-b300"),
    (r"b200", "dgx-b200"),
    (r"h200", "hgx-h200"),
    (r"h20\b", "hgx-h20"),
    (r"h800", "h800-cluster"),
    (r"h100.*nvl", "h100-nvl-8"),
    (r"h100.*pcie", "h100-pcie-8"),
    (r"h100", "dgx-h100"),
    (r"a100.*pcie", "a100-pcie-8"),
    (r"a100.*40(?!.*80)", "aws-p4d"),
    (r"a100", "dgx-a100"),
    (r"l40s", "l40s-pcie-8"),
    (r"rtx.?pro.?6000", "rtx-pro-6000-8"),
    (r"rtx.?4090", "rtx-4090-8"),
    (r"a6000", "rtx-a6000-8"),
    (r"v100", "v100-dgx2"),
    (r"mi355", "mi355x-8"),
    (r"mi325", "mi325x-8"),
    (r"mi300", "mi300x-8"),
    (r"mi250", "frontier"),
    (r"910b", "ascend-910b-8"),
    (r"tpu.?v3", "tpu-v3-pod"),
    (r"tpu.?v4", "tpu-v4-pod"),
    (r"tpu.?v5e", "tpu-v5e-pod"),
    (r"tpu.?v5p", "tpu-v5p-pod"),
    (r"tpu.?v6e|trillium", "tpu-v6e-pod"),
    (r"tpu.?v?7|ironwood", "tpu-v7x-pod"),
)
"""What the name of a chip looks like, and the machines that have it; the first match holds."""


def read_domain(profile: str, devices: int, reading: Reading) -> dict[str, Any]:
    """Return the choice of machines, with the devices of each scale-up domain that a job takes.

    The most whole nodes that leave no rest: 64 of the 72 of a rack for 256. Schedulers place jobs
    so, since else groups of ranks would lie across racks (Slurm topology/block, sbatch --segment,
    from memory, unchecked).
    """
    choice: dict[str, Any] = {"profile": profile, "devices": devices}
    spec = load_cluster(profile)
    full, node = spec.scale_up.domain.value, spec.devices_per_node.value
    if spec.scale_up.torus is None and devices > full and devices % node == 0:
        used = next((n for n in range(full - full % node, 0, -node) if devices % n == 0), full)
        if used < full:
            choice["devices_per_domain"] = used
            reading.assume(f"{used} of the {full} devices of each scale-up domain are used")
    return choice


def cluster_of(case: Case, file: CaseFile) -> str:
    """Return the cluster profile for the machines of `case`; SkippedError for unknown ones."""
    name = case.text("hardware")
    described = file.hardware.get(name)
    chip = str(described.get("chip", "")) if isinstance(described, Mapping) else ""
    for words in (name, chip):
        if words in cluster_names():
            return words
    found = cluster_named(f"{chip} {name}") or cluster_named(name)
    if found is not None:
        return found
    raise SkippedError(f"no machine profile for the hardware '{name}'{f', {chip}' if chip else ''}")


def cluster_named(words: str) -> str | None:
    """Return the profile of the machines that `words` name, None where none is known."""
    lower = words.casefold()
    return next((profile for pattern, profile in _PROFILES if re.search(pattern, lower)), None)


_RATE = re.compile(r"(\d+(?:\.\d+)?) ?Gb/s per (node|gpu|chip|device)", re.IGNORECASE)


def network_rate(case: Case, file: CaseFile) -> float | None:
    """Return the bytes per second of each device between nodes, where the file states them.

    Under `hardware`, in `inter_node`: `800 Gb/s per node` or `400 Gb/s per GPU`.
    """
    described = file.hardware.get(case.text("hardware"))
    words = described if isinstance(described, Mapping) else {}
    found = _RATE.search(str(words.get("inter_node", "")))
    if found is None:
        return None
    devices = words.get("chips_per_node") if found[2].casefold() == "node" else 1
    if not isinstance(devices, int) or isinstance(devices, bool) or devices < 1:
        return None
    return float(found[1]) * 1e9 / 8 / devices


def with_network(machines: Cluster, rate: float | None) -> Cluster:
    """Return `machines` with so many bytes per second between nodes; None leaves the profile's."""
    out = machines.topology.scale_out
    if rate is None or out is None:
        return machines
    pair = rate * out.pair_bandwidth_bytes_per_s / out.bandwidth_bytes_per_s
    tier = replace(out, bandwidth_bytes_per_s=rate, pair_bandwidth_bytes_per_s=pair)
    return replace(machines, topology=replace(machines.topology, scale_out=tier))
