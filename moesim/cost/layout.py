"""A parallel layout on a topology: degrees, rank groups, and the networks between them."""

from dataclasses import dataclass, replace

from moesim.cost.collectives import Network, network
from moesim.cost.software import Software
from moesim.hardware.groups import Group
from moesim.hardware.rank_order import DEFAULT_ORDER, Degrees, joined, parallel_groups, strides
from moesim.hardware.topology import Topology
from moesim.model.context import ContextComm
from moesim.model.cross_entropy import CrossEntropy
from moesim.model.fusions import Fusions
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
    cp_comm: ContextComm = "ring"
    fsdp: FullSharding | None = None
    tensor_overlap: bool = False
    """Whether tensor-parallel gathers and scatters run beside products."""
    chunk_layers: tuple[int, ...] | None = None
    """Layers of each chunk in the order of the network, where the user gave them."""
    chunk_mtp: int = 0
    """MTP modules in the last of them."""
    rank_order: str = DEFAULT_ORDER
    """Dimensions of the ranks, the fastest first."""

    @property
    def edp(self) -> int:
        """Replicas of each expert."""
        return self.tp * self.cp * self.dp // (self.ep * self.etp)

    @property
    def copies(self) -> int:
        """Stages that hold the same layers: with dualpipe the stage opposite has them too."""
        return 2 if self.schedule == "dualpipe" else 1

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
    layout: Layout, dtype: str, *, attention_kernel: str = "fused",
    cross_entropy: CrossEntropy = "fused", fusions: Fusions = "full",
    quantisation: Quantisation | None = None,
) -> Shard:  # fmt: skip
    """Return the share of a layer that one rank of `layout` holds."""
    return Shard(
        tp=layout.tp,
        cp=layout.cp,
        cp_comm=layout.cp_comm,
        ep=layout.ep,
        etp=layout.etp,
        sequence_parallel=layout.sequence_parallel,
        dtype=dtype,
        dispatch_dtype=layout.dispatch_dtype,
        sends_once=layout.dispatcher in UNSORTED,
        fused_attention=not attention_kernel.startswith("unfused"),
        wide_scores=attention_kernel == "unfused_fp32",
        cross_entropy=cross_entropy,
        fusions=fusions,
        quantisation=quantisation,
    )


def groups(layout: Layout) -> dict[str, Group]:
    """Return the rank groups of `layout` by name."""
    found = parallel_groups(degrees(layout), layout.rank_order)
    return found | (_shard_groups(layout, layout.fsdp) if layout.fsdp else {})


def degrees(layout: Layout) -> Degrees:
    """Return the sizes of the dimensions of the ranks."""
    return Degrees(tp=layout.tp, cp=layout.cp, dp=layout.dp, pp=layout.pp, ep=layout.ep,
                   etp=layout.etp)  # fmt: skip


def _shard_groups(layout: Layout, rule: FullSharding) -> dict[str, Group]:
    """Shard groups take the innermost ranks; equal shards of all groups are replicas."""
    found = degrees(layout)
    dense, experts = (strides(one, layout.rank_order) for one in (found.dense, found.experts))
    shards, replicas = layout.expert_shards, layout.dp // rule.ranks
    return {
        "fsdp": joined((layout.cp, dense["cp"]), (rule.ranks, dense["dp"])),
        "expert_fsdp": Group(shards, experts["dp"]),
        "replicas": Group(replicas, dense["dp"] * rule.ranks),
        "expert_replicas": Group(replicas, experts["dp"] * shards),
    }


def networks(layout: Layout, topology: Topology, software: Software) -> dict[str, Network]:
    """Return the network between the ranks of each group."""
    found = {name: network(group, topology, software) for name, group in groups(layout).items()}
    if layout.copies > 1:
        found |= {name: _with_stage_opposite(found[name], topology, software) for name in _REPLICAS}
    return found | ({"embedding": _ends(found["pp"])} if layout.pp > 1 else {})


_REPLICAS = ("dp_cp", "edp")
"""The groups over which gradients are reduced."""


def _with_stage_opposite(replicas: Network, topology: Topology, software: Software) -> Network:
    """Return the network between replicas on two stages that hold the same layers.

    The stages are in one domain only if all devices are; else the group touches twice the domains.
    """
    size, members = 2 * replicas.size, replicas.members
    if topology.devices <= topology.scale_up.domain_size:
        whole = network(Group(size, topology.devices // size), topology, software)
        return replace(whole, members=size)
    across = network(Group(2, topology.devices // 2), topology, software)
    return replace(
        replicas, size=size, domains=2 * replicas.domains, members=members, axes=None,
        fabric_bytes_per_s=replicas.fabric_bytes_per_s or across.fabric_bytes_per_s,
        scale_out_bytes_per_s=replicas.scale_out_bytes_per_s or across.scale_out_bytes_per_s,
    )  # fmt: skip


def _ends(stages: Network) -> Network:
    """Return the network between the first and the last stage, on the same place in both.

    They are in one domain only if all stages are; there one link of a mesh or torus joins them.
    """
    if stages.domains > 1:
        return replace(stages, size=2, domains=2, members=1)
    rate = min(stages.scale_up_bytes_per_s, stages.link_bytes_per_s)
    return replace(stages, size=2, members=2, axes=None, scale_up_bytes_per_s=rate)
