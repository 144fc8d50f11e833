"""The shape of one micro-batch, and how the model is cut over ranks."""

from dataclasses import dataclass
from typing import Literal

from moesim.model.cross_entropy import CrossEntropy
from moesim.model.fusions import Fusions
from moesim.model.operators import DTYPE_BYTES
from moesim.model.quantisation import Quantisation


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One micro-batch: `sequences` of `length` tokens; `memory_length` encoder tokens each."""

    sequences: int
    length: int
    memory_length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The share of a layer that one rank holds."""

    tp: int = 1
    cp: int = 1
    cp_comm: Literal["ring", "all_gather", "all_to_all"] = "all_gather"
    """How the ranks that share a sequence come by each other's keys and values."""
    ep: int = 1
    etp: int = 1
    sequence_parallel: bool = True
    dispatch_dtype: str | None = None
    """Type in which tokens travel to their experts; None is that of the activations."""
    sends_once: bool = False
    """Whether the dispatcher sends a token once to each rank: then its rows are copied and sorted
    by expert where they arrive, and summed there before they go back (DeepEP; the kernels
    moe_expand_local and moe_combine_local of DeepSeek's trace, deepseek-ai/profile-data
    train.json @44960242)."""
    dtype: str = "bf16"
    """Compute type of the projections and experts."""
    fused_attention: bool = True
    """Whether attention is one kernel, which leaves no scores in memory."""
    wide_scores: bool = False
    """Whether scores that go through memory are fp32 up to the softmax's output."""
    cross_entropy: CrossEntropy = "fused"
    """Whether the loss is one pass over the logits, or kernel after kernel in fp32."""
    fusions: Fusions = "full"
    """Whose passes run between the products."""
    quantisation: Quantisation | None = None
    """How fp8 products get their inputs; None where there are none."""

    @property
    def wide(self) -> str:
        """Type of everything else: attention, router, logits, activations; bf16 beside fp8."""
        return "bf16" if self.dtype in ("fp8", "int8") else self.dtype

    @property
    def gathered_share(self) -> float:
        """Share that a rank keeps of an input gathered over tp; it gathers the rest again."""
        return 1 / self.tp if self.sequence_parallel else 1.0

    @property
    def wide_bytes(self) -> float:
        """Bytes of one activation."""
        return DTYPE_BYTES[self.wide]


def local_tokens(shape: Shape, shard: Shard) -> int:
    """Return the tokens whose attention one rank computes."""
    return shape.sequences * shape.length // shard.cp


def sequence_shard_tokens(shape: Shape, shard: Shard) -> int:
    """Return the tokens one rank holds between the tensor-parallel regions."""
    split = shard.tp if shard.sequence_parallel else 1
    return max(1, local_tokens(shape, shard) // split)


def causal_pairs(length: int, window: int | None = None) -> float:
    """Return the (query, key) pairs of a causal sequence in which a query sees `window` tokens.

    Full: n (n + 1) / 2; with a window w < n: w n - w (w - 1) / 2.
    """
    if window is None or window >= length:
        return length * (length + 1) / 2
    return window * length - window * (window - 1) / 2
