"""Whether ranks can be numbered and placed as the scenario says."""

from dataclasses import replace

from moesim.cost.layout import Layout, degrees
from moesim.hardware.rank_order import strides
from moesim.hardware.topology import Cluster
from moesim.spec.scenario import Scenario


def check_order(scenario: Scenario, layout: Layout, key: str) -> None:
    """Raise ScenarioError where the stages of dense layers and of experts are other ranks.

    Megatron-LM asks for the same: with pp not last, dp must equal the experts' own.
    """
    found = degrees(layout)
    dense, experts = (
        strides(sizes, layout.rank_order)["pp"] for sizes in (found.dense, found.experts)
    )
    if layout.pp > 1 and dense != experts:
        raise scenario.error(
            f"{key}.rank_order",
            f"with {layout.rank_order} a stage's neighbour is {dense} ranks away for dense layers "
            f"and {experts} for experts; put pp last, or make tp * cp = {layout.tp * layout.cp} "
            f"and etp * ep = {layout.etp * layout.ep} equal",
        )


def check_dispatcher(scenario: Scenario, layout: Layout, machines: Cluster, key: str) -> None:
    """Raise ScenarioError where tokens travel by kernels that the network has not.

    DeepEP and HybridEP are CUDA kernels over NVLink and RDMA (deepseek-ai/DeepEP README @dd758ca).
    """
    if machines.topology.torus is not None and layout.dispatcher in ("deepep", "hybridep"):
        raise scenario.error(
            f"{key}.dispatcher",
            f"{layout.dispatcher} sends over NVLink and RDMA; on the torus of {machines.name} take "
            "alltoall or allgather",
        )


def with_placement(
    scenario: Scenario, machines: Cluster, placement: tuple[int, ...] | None, key: str
) -> Cluster:
    """Return `machines` with the ranks on them as given; a rank on the device of its number else.

    Raises ScenarioError where the devices are no whole number of such placements.
    """
    given, devices = placement or (), machines.topology.devices
    if given == machines.topology.placement:
        return machines
    if given and devices % len(given):
        raise scenario.error(
            f"{key}.placement",
            f"places {len(given)} ranks, which must divide the {devices} devices",
        )
    return replace(machines, topology=replace(machines.topology, placement=given))
