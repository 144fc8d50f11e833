"""What a network is: its layers, as frozen records that know nothing of machines or seconds.

A stack is a tuple of runs (layer, count): equal neighbours are described, and later priced, once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Norm = Literal["rms", "layer"]
"""rms: one weight per channel; layer: a weight and a bias per channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedQueryAttention:
    """Softmax attention with `kv_heads` key/value heads shared by `heads` query heads."""

    heads: int
    kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: Literal["none", "per_head", "per_layer"] = "none"
    """per_head: one weight vector of head_dim for q and one for k; per_layer: over all heads."""
    window: int | None = None
    """Tokens that a query can look back on; None is all of them."""
    sinks: bool = False
    """One learned logit per head that takes attention away from the tokens (gpt-oss)."""
    output_gate: bool = False
    """The query projection is twice as wide; the second half gates the output (Qwen3-Next)."""
    shared_key_value: bool = False
    """Values are the keys: there is no value projection (gemma-4, full-attention layers)."""
    causal: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseIndexer:
    """DeepSeek sparse attention: small heads choose the `top_k` tokens a query attends to."""

    heads: int
    head_dim: int
    top_k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (MLA): keys and values come from a low-rank latent vector."""

    heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    bias: bool = False
    indexer: SparseIndexer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearAttention:
    """Linear attention: a recurrent state per value head instead of a key/value cache."""

    key_heads: int
    value_heads: int
    key_head_dim: int
    value_head_dim: int
    conv_kernel: int
    """Taps of the short convolution over queries, keys and values; 0 is none."""
    rule: Literal["gated_delta", "lightning"] = "gated_delta"
    """gated_delta: gates from two small projections (Qwen3-Next); lightning: fixed decay per head,
    no gate projections, and a norm over all heads (MiniMax-Text-01)."""


AttentionKind = GroupedQueryAttention | LatentAttention | LinearAttention


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseFfn:
    """A feed-forward network that every token passes."""

    width: int
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeFfn:
    """A mixture of `num_experts` feed-forward networks of which a token passes `top_k`."""

    num_experts: int
    top_k: int
    expert_width: int
    gated: bool = True
    expert_bias: bool = False
    router_bias: bool = False
    shared_width: int = 0
    """Width of all shared experts together; 0 is none."""
    shared_gate: bool = False
    """A learned scalar gate on the shared expert (Qwen2-MoE, Qwen3-Next)."""
    parallel_dense_width: int = 0
    """Width of a dense FFN beside the experts (Arctic, OpenMoE, gemma-4); 0 is none."""
    groups: int = 1
    """Expert groups of group-limited routing."""
    groups_per_token: int = 1
    """How many of the groups one token may reach."""
    group_best: int = 2
    """Best scores of a group that are added up when the groups of a token are picked: 1 in
    DeepSeek-V2, 2 in DeepSeek-V3."""
    capacity_factor: float | None = None
    """The capacity factor the model was trained with, where it is part of the published recipe."""
    extra_params: int = 0
    """Further parameters of the block that no projection accounts for (gemma-4 expert scales)."""


FfnKind = DenseFfn | MoeFfn


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One transformer block."""

    attention: AttentionKind
    ffn: FfnKind
    cross_attention: GroupedQueryAttention | None = None
    """Attention over the encoder's output, in the decoder of an encoder-decoder model."""
    norms: int = 2
    """Normalisations over the hidden width in this block."""
    norm: Norm = "rms"
    extra_params: int = 0
    """Parameters no other field accounts for, such as T5's relative-position table."""


@dataclass(frozen=True, slots=True)
class Run:
    """`count` equal layers, one after the other."""

    layer: Layer
    count: int


Stack = tuple[Run, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A whole network. Widths in elements, counts of layers, vocabulary in tokens."""

    name: str
    source: str
    """Where the figures come from."""
    hidden: int
    vocab: int
    decoder: Stack
    encoder: Stack = ()
    tied_embeddings: bool = False
    norm: Norm = "rms"
    lm_head_bias: bool = False
    extra_params: int = 0
    """Parameters outside layers, embeddings and final norms (learned positions, …)."""
    mtp_layers: int = 0
    """Multi-token-prediction modules; each is one more layer like the last, with logits.
    Their parameters are not part of the published totals."""
    weight_dtype: str = "bf16"
    """How the published weights are stored: bf16, fp8, mxfp4, …"""

    @property
    def num_layers(self) -> int:
        """Layers of encoder and decoder together, without MTP modules."""
        return sum(run.count for run in (*self.encoder, *self.decoder))

    @property
    def is_moe(self) -> bool:
        """Whether any layer has experts."""
        return any(isinstance(run.layer.ffn, MoeFfn) for run in (*self.encoder, *self.decoder))


def layers_of(stack: Stack) -> Iterator[Layer]:
    """Yield the layers of a stack one by one, from the first to the last."""
    for run in stack:
        for _ in range(run.count):
            yield run.layer


def runs_of(layers: list[Layer]) -> Stack:
    """Return `layers` as runs, equal neighbours together."""
    runs: list[Run] = []
    for layer in layers:
        if runs and runs[-1].layer == layer:
            runs[-1] = Run(layer, runs[-1].count + 1)
        else:
            runs.append(Run(layer, 1))
    return tuple(runs)
