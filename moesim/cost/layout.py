"""A parallel layout on a topology: degrees, rank groups, and the networks between them."""

from dataclasses import dataclass, replace

from moesim.cost.collectives import Network, network
from moesim.cost.software import Software
from moesim.hardware.groups import Group, parallel_groups
from moesim.hardware.topology import Topology
from moesim.model.cross_entropy import CrossEntropy
from moesim.model.quantisation import Quantisation
from moesim.model.shapes import Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a model is cut over devices, every degree resolved."""

    tp: int
    pp: int
    vpp: int
    cp: int
    ep: int
    etp: int
    dp: int
    sequence_parallel: bool
    schedule: str
    dispatcher: str
    dispatch_dtype: str | None = None

    @property
    def edp(self) -> int:
        """Replicas of each expert."""
        return self.tp * self.cp * self.dp // (self.ep * self.etp)

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.tp * self.cp * self.dp * self.pp


def shard(
    layout: Layout, dtype: str, *, fused_attention: bool = True,
    cross_entropy: CrossEntropy = "fused", quantisation: Quantisation | None = None,
) -> Shard:  # fmt: skip
    """Return the share of a layer that one rank of `layout` holds."""
    return Shard(
        tp=layout.tp,
        cp=layout.cp,
        ep=layout.ep,
        etp=layout.etp,
        sequence_parallel=layout.sequence_parallel,
        dtype=dtype,
        dispatch_dtype=layout.dispatch_dtype,
        fused_attention=fused_attention,
        cross_entropy=cross_entropy,
        quantisation=quantisation,
    )


def groups(layout: Layout) -> dict[str, Group]:
    """Return the rank groups of `layout` by name."""
    return parallel_groups(
        tp=layout.tp, cp=layout.cp, dp=layout.dp, pp=layout.pp, ep=layout.ep, etp=layout.etp
    )


def networks(layout: Layout, topology: Topology, software: Software) -> dict[str, Network]:
    """Return the network between the ranks of each group."""
    found = {name: network(group, topology, software) for name, group in groups(layout).items()}
    return found | ({"embedding": _ends(found["pp"])} if layout.pp > 1 else {})


def _ends(stages: Network) -> Network:
    """Return the network between the first and the last stage, on the same place in both.

    They are in one domain only if all stages are; there one link of a mesh or torus joins them.
    """
    if stages.domains > 1:
        return replace(stages, size=2, domains=2, members=1)
    rate = min(stages.scale_up_bytes_per_s, stages.link_bytes_per_s)
    return replace(stages, size=2, members=2, axes=None, scale_up_bytes_per_s=rate)
