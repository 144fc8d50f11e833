"""Deployments for tests: a model on a few devices."""

from typing import Any

from moesim.cost.collectives import network
from moesim.cost.serving.deployment import Cut, Deployment, Formats
from moesim.cost.software import load_software, on_device
from moesim.hardware.groups import Group
from moesim.hardware.profiles import load_accelerator, load_cluster
from moesim.hardware.topology import cluster
from moesim.model.named import load_model
from moesim.moe.loads import LoadLaw


def deployment(
    model: str, cut: Cut, formats: Formats | None = None, *, profile: str = "dgx-h100",
    software: str = "vllm", devices: int = 8, load: LoadLaw | None = None,
) -> Deployment:  # fmt: skip
    """Return `model` cut like that on a shipped cluster."""
    spec = load_cluster(profile)
    machines = cluster(spec, load_accelerator(spec.accelerator), devices)
    link = machines.topology.scale_up.bandwidth_bytes_per_s
    engine = on_device(load_software(software), machines.device, link)
    assert engine.kernels is not None

    def among(size: int) -> Any:
        return network(Group(size, 1), machines.topology, engine)

    return Deployment(
        architecture=load_model(model), device=machines.device, chip=engine.kernels.chip,
        kernels=engine.kernels, software=engine,
        networks={"tp": among(cut.tp), "ep": among(cut.tp * cut.dp)}, cut=cut,
        formats=formats or Formats(), load=load or LoadLaw(law="uniform"),
    )  # fmt: skip
