"""A parallel layout on a topology: degrees, rank groups, and the networks between them."""

from dataclasses import dataclass, replace

from moesim.cost.collectives import Network, network
from moesim.cost.software import Software
from moesim.hardware.groups import Group, parallel_groups
from moesim.hardware.topology import Topology
from moesim.model.cross_entropy import CrossEntropy
from moesim.model.quantisation import Quantisation
from moesim.model.shapes import Shard
from moesim.moe.dispatchers import UNSORTED


@dataclass(frozen=True, slots=True, kw_only=True)
class FullSharding:
    """How weights, gradients and optimizer states are spread over data-parallel ranks."""

    ranks: int
    """Data-parallel ranks in a shard group; the context parallel ranks of each take part."""
    reshard: bool = True
    """Whether weights are given up after the forward pass and gathered again."""
    prefetch: bool = True
    overlap_reduce: bool = True


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
    fsdp: FullSharding | None = None
    tensor_overlap: bool = False
    """Whether tensor-parallel gathers and scatters run beside products."""
    chunk_layers: tuple[int, ...] | None = None
    """Layers of each chunk in the order of the network, where the user gave them."""
    chunk_mtp: int = 0
    """MTP modules in the last of them."""

    @property
    def edp(self) -> int:
        """Replicas of each expert."""
        return self.tp * self.cp * self.dp // (self.ep * self.etp)

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.tp * self.cp * self.dp * self.pp

    @property
    def dense_shards(self) -> int:
        """Ranks over which fully sharded dense weights are spread; 1 without sharding."""
        return self.fsdp.ranks * self.cp if self.fsdp else 1

    @property
    def expert_shards(self) -> int:
        """Ranks over which fully sharded experts are spread, beyond ep and etp."""
        return self.tp * self.dense_shards // (self.ep * self.etp) if self.fsdp else 1


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
        sorts_before_dispatch=layout.dispatcher not in UNSORTED,
        fused_attention=fused_attention,
        cross_entropy=cross_entropy,
        quantisation=quantisation,
    )


def groups(layout: Layout) -> dict[str, Group]:
    """Return the rank groups of `layout` by name."""
    found = parallel_groups(
        tp=layout.tp, cp=layout.cp, dp=layout.dp, pp=layout.pp, ep=layout.ep, etp=layout.etp
    )
    return found | (_shard_groups(layout, layout.fsdp) if layout.fsdp else {})


def _shard_groups(layout: Layout, rule: FullSharding) -> dict[str, Group]:
    """Shard groups take the innermost ranks; equal shards of all groups are replicas."""
    dense, experts = layout.dense_shards, layout.expert_shards
    between, replicas = layout.etp * layout.ep, layout.dp // rule.ranks
    return {
        "fsdp": Group(dense, layout.tp),
        "expert_fsdp": Group(experts, between),
        "replicas": Group(replicas, layout.tp * dense),
        "expert_replicas": Group(replicas, between * experts),
    }


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
