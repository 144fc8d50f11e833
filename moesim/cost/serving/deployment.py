"""A model as an engine holds it: number formats by component, and how it is cut over devices."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from moesim.cost.collectives import Network
from moesim.cost.curves import Chip
from moesim.cost.fitted import Kernels
from moesim.cost.software import Software
from moesim.hardware.device import Device
from moesim.model.architecture import Architecture
from moesim.moe.loads import LoadLaw

ExpertExchange = Literal[
    "allgather_reducescatter", "deepep", "deepep_normal", "deepep_low", "one_sided"
]
"""How groups of ranks with tokens of their own bring these to the experts.
allgather_reducescatter: all to all and sums back; deepep_normal: one copy per rank of the chosen
experts; deepep_low: a copy per choice, by the low-latency kernels; deepep: low latency for up to
128 tokens a rank, else normal; one_sided: written over NVLink by the sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """Number formats by component, by the names of `number_types`."""

    attention: str = "bf16"
    """The projections of attention."""
    dense: str = "bf16"
    """Dense feed-forward networks and shared experts."""
    experts: str = "bf16"
    head: str = "bf16"
    cache: str = "bf16"
    """Keys and values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How a replica is cut over devices: tp * dp * pp of them, and `ffn`."""

    tp: int = 1
    """Tensor parallel ranks of attention and dense layers."""
    dp: int = 1
    """Attention data parallel ranks: each has its own requests, experts are common."""
    ep: int = 1
    """Ranks over which experts are spread; the rest of tp * dp, or of `ffn`, cuts each expert."""
    pp: int = 1
    dcp: int = 1
    """Decode context parallel ranks among those of tp: they spread a sequence's cache by tokens."""
    ffn: int = 0
    """Devices with nothing but feed-forward networks, beside tp * dp that have none; 0: these lie
    beside attention."""
    micro_batches: int = 1
    """Parts of a batch that go to and fro between both kinds of devices."""
    exchange: ExpertExchange = "allgather_reducescatter"
    redundant_experts: int = 0
    """Copies of busy experts, of a layer over all ranks; the ranks that hold experts are level."""

    @property
    def expert_tp(self) -> int:
        """Ranks that share an expert."""
        return self.expert_ranks // self.ep

    @property
    def expert_ranks(self) -> int:
        """Ranks of a stage that hold experts."""
        return self.ffn or self.tp * self.dp

    @property
    def devices(self) -> int:
        """Devices of a replica."""
        return self.tp * self.dp * self.pp + self.ffn


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafting:
    """Tokens that are guessed ahead and checked together: speculative decoding."""

    tokens: int
    """Guessed per step."""
    expected: Fraction
    """Tokens that a step yields on average: one, and the guesses that are accepted."""
    model: "Deployment | None" = None
    """A small model that guesses; None: the model's own multi-token-prediction module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offload:
    """Experts outside device memory: what lies where, and what a miss costs."""

    resident_experts: int
    """Of each layer, in device memory, over all ranks."""
    cache: Literal["static", "lru"] = "static"
    link_bytes_per_s: float
    """Rate at which experts come to one device."""
    prefetch: float = 0.0
    """Share of the missing experts that is fetched beside the layer before."""
    host_flop_per_s: float | None = None
    """Of a processor that computes missing experts where they lie; None: they are fetched."""
    host_bytes_per_s: float | None = None
    """Of that processor's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Everything that an iteration's time depends on but the batch."""

    architecture: Architecture
    device: Device
    chip: Chip
    kernels: Kernels
    software: Software
    networks: dict[str, Network]
    """tp: ranks of one attention group; ep: a stage's devices; dcp: those of an attention
    group that spread a cache, where there are several."""
    cut: Cut
    formats: Formats
    load: LoadLaw
    overlap: Literal["none", "shared_expert", "two_batch"] = "none"
    """What runs while tokens travel between groups of ranks: nothing, shared experts, or the other
    half of the batch."""
    graphs: bool = True
    """Whether decoding is launched as CUDA graphs."""
    graph_sizes: tuple[int, ...] = ()
    """Numbers of tokens that graphs were captured for, rising; others run in the next larger one,
    and without a graph beyond the largest. Empty: as if each number had one."""
    hidden_host: bool = False
    """Whether the host prepares an iteration while the device computes the one before."""
    drafting: Drafting | None = None
    offload: Offload | None = None
