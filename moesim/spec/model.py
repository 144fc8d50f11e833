"""A model in moesim's own YAML: sizes and the pattern of its layers."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from moesim.spec.base import Spec

Size = Annotated[int, Field(ge=1, le=10**9)]
Amount = Annotated[int, Field(ge=0, le=10**9)]
Layers = Annotated[int, Field(ge=1, le=10_000)]
Text = Annotated[str, Field(min_length=1, max_length=2000)]
Dtype = Literal["bf16", "fp16", "fp32", "fp8", "mxfp8", "mxfp4", "nvfp4", "int8", "int4"]


class GroupedQueryAttentionSpec(Spec):
    """Softmax attention in which several query heads share one key/value head."""

    kind: Literal["gqa"]
    """gqa covers multi-head (kv_heads = heads) and multi-query attention (kv_heads = 1) too."""
    heads: Size
    """Query heads."""
    kv_heads: Size
    """Key/value heads; they divide the query heads."""
    head_dim: Size
    """Width of one head."""
    qkv_bias: bool = False
    """Whether the query, key and value projections have biases."""
    output_bias: bool = False
    """Whether the output projection has a bias."""
    qk_norm: Literal["none", "per_head", "per_layer"] = "none"
    """Norm on queries and keys: one weight vector per head width, or one over all heads."""
    window: Size | None = None
    """Tokens that a query can look back on; left out, all of them."""
    sinks: bool = False
    """One learned logit per head that takes attention away from the tokens (gpt-oss)."""
    output_gate: bool = False
    """The query projection is twice as wide and gates the output (Qwen3-Next)."""
    shared_key_value: bool = False
    """Values are the keys, so there is no value projection (Gemma 4)."""

    @field_validator("kv_heads")
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        heads = info.data.get("heads")
        if heads is not None and heads % value:
            raise ValueError(f"{value} does not divide the {heads} query heads")
        return value


class IndexerSpec(Spec):
    """Small heads that choose the tokens which a query attends to (DeepSeek sparse attention)."""

    heads: Size
    """Heads of the indexer."""
    head_dim: Size
    """Width of one of them."""
    top_k: Size
    """Tokens that a query attends to."""


class LatentAttentionSpec(Spec):
    """Multi-head latent attention: keys and values come from one narrow vector per token."""

    kind: Literal["mla"]
    """mla."""
    heads: Size
    """Heads."""
    q_lora_rank: Size | None = None
    """Width that queries are squeezed to; left out, they are not."""
    kv_lora_rank: Size
    """Width of the vector that keys and values come from; it is what the cache holds."""
    qk_nope_head_dim: Size
    """Width per head of the part of queries and keys without positions."""
    qk_rope_head_dim: Size
    """Width of the part with positions; all heads share it in the keys."""
    v_head_dim: Size
    """Width per head of the values."""
    bias: bool = False
    """Whether the projections from and to the hidden width have biases."""
    indexer: IndexerSpec | None = None
    """Sparse attention; left out, a query attends to every token before it."""

    @field_validator("indexer")
    @classmethod
    def _needs_rank(cls, value: IndexerSpec | None, info: ValidationInfo) -> IndexerSpec | None:
        if value is not None and info.data.get("q_lora_rank", 1) is None:
            raise ValueError("an indexer reads the squeezed queries: give q_lora_rank too")
        return value


class LinearAttentionSpec(Spec):
    """Linear attention: a state of fixed size per head instead of a cache that grows."""

    kind: Literal["linear"]
    """linear."""
    key_heads: Size
    """Heads of queries and keys."""
    value_heads: Size
    """Heads of values and states; a multiple of key_heads."""
    key_head_dim: Size
    """Width of a query or key head."""
    value_head_dim: Size
    """Width of a value head."""
    conv_kernel: Annotated[int, Field(ge=0, le=1024)]
    """Taps of the short convolution over queries, keys and values; 0 is none."""
    rule: Literal["gated_delta", "lightning"] = "gated_delta"
    """gated_delta (Qwen3-Next) or lightning (MiniMax-Text-01)."""

    @field_validator("value_heads")
    @classmethod
    def _is_multiple(cls, value: int, info: ValidationInfo) -> int:
        keys = info.data.get("key_heads")
        if keys is not None and value % keys:
            raise ValueError(f"{value} is not a multiple of the {keys} key heads")
        return value


AttentionSpec = Annotated[
    GroupedQueryAttentionSpec | LatentAttentionSpec | LinearAttentionSpec,
    Field(discriminator="kind"),
]


class SecondAttentionSpec(Spec):
    """Another attention that takes the place of the first in every n-th layer."""

    every: Annotated[int, Field(ge=2, le=10_000)]
    """n: with 4, the layers 4, 8, 12 and so on have this attention."""
    attention: AttentionSpec
    """The attention of those layers."""


class FfnSpec(Spec):
    """A feed-forward network that every token passes."""

    width: Size
    """Inner width."""
    gated: bool = True
    """Three matrices with a gate (SwiGLU, GeGLU) instead of two."""
    bias: bool = False
    """Whether its projections have biases."""


class MoeSpec(Spec):
    """Experts, of which each token passes a few."""

    num_experts: Size
    """Routed experts in a layer."""
    top_k: Size
    """Experts that a token passes."""
    expert_width: Size
    """Inner width of one expert."""
    gated: bool = True
    """Three matrices with a gate (SwiGLU, GeGLU) instead of two; holds for shared experts too."""
    expert_bias: bool = False
    """Whether the experts' projections have biases."""
    router_bias: bool = False
    """Whether the router has a bias."""
    shared_expert_width: Amount = 0
    """Inner width of all shared experts together; 0 is none."""
    shared_expert_gate: bool = False
    """A learned scalar that scales the shared expert (Qwen2-MoE, Qwen3-Next)."""
    parallel_dense_width: Amount = 0
    """Inner width of a dense network beside the experts (Arctic, OpenMoE); 0 is none."""
    groups: Size = 1
    """Groups that the experts are divided into for routing."""
    groups_per_token: Annotated[Size, Field(validate_default=True)] = 1
    """Groups that one token may reach."""
    group_best: Annotated[int, Field(ge=1, le=64)] = 2
    """Best scores of a group that are added up when the groups of a token are picked: 1 in
    DeepSeek-V2, 2 in DeepSeek-V3."""
    capacity_factor: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Capacity factor of the published training recipe; left out, no token is dropped."""
    extra_params: Amount = 0
    """Parameters of the block that nothing above accounts for."""

    @field_validator("top_k")
    @classmethod
    def _not_more_than_experts(cls, value: int, info: ValidationInfo) -> int:
        experts = info.data.get("num_experts")
        if experts is not None and value > experts:
            raise ValueError(f"must be at most num_experts, {experts}")
        return value

    @field_validator("shared_expert_gate")
    @classmethod
    def _has_shared_expert(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("shared_expert_width") == 0:
            raise ValueError("there is no shared expert to gate: give shared_expert_width")
        return value

    @field_validator("groups")
    @classmethod
    def _divide_experts(cls, value: int, info: ValidationInfo) -> int:
        experts = info.data.get("num_experts")
        if experts is not None and experts % value:
            raise ValueError(f"{value} groups do not divide the {experts} experts evenly")
        return value

    @field_validator("groups_per_token")
    @classmethod
    def _hold_enough(cls, value: int, info: ValidationInfo) -> int:
        groups, experts, top_k = (info.data.get(key) for key in ("groups", "num_experts", "top_k"))
        if groups is None or experts is None or top_k is None:
            return value
        if value > groups:
            raise ValueError(f"must be at most groups, {groups}")
        if value * (experts // groups) < top_k:
            raise ValueError(f"{value} groups hold {value * (experts // groups)} experts, "
                             f"fewer than top_k, {top_k}")  # fmt: skip
        return value


class ModelSpec(Spec):
    """A network: decoder-only, or encoder and decoder."""

    name: Text
    """What reports call it."""
    source: Text
    """Where its sizes were read."""
    hidden: Size
    """Width of the residual stream."""
    vocab: Size
    """Tokens in the vocabulary, with padding if the weights have it."""
    layers: Layers
    """Layers of the decoder (of the whole network where there is no encoder)."""
    attention: AttentionSpec
    """The attention of every layer, unless second_attention says otherwise."""
    second_attention: SecondAttentionSpec | None = None
    """Another attention in every n-th layer: full among windows, softmax among linear."""
    encoder_layers: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Layers of the encoder; the decoder's layers then also attend to its output."""
    moe: MoeSpec | None = None
    """The experts; left out, the network is dense."""
    dense_first_layers: Amount = 0
    """How many of the first layers (of each stack) have the dense ffn instead of experts."""
    moe_every: Size = 1
    """With n, the last of every n layers after those has experts and the others the dense ffn."""
    ffn: Annotated[FfnSpec | None, Field(validate_default=True)] = None
    """The feed-forward network of the layers without experts."""
    norm: Literal["rms", "layer"] = "rms"
    """rms: one weight per channel; layer: a weight and a bias per channel."""
    norms_per_layer: Annotated[int, Field(ge=0, le=16)] = 2
    """Norms over the hidden width in a layer, without the one for attention to an encoder."""
    tied_embeddings: bool = False
    """The output projection is the input table."""
    lm_head_bias: bool = False
    """Whether the output projection has a bias."""
    learned_positions: Amount = 0
    """Rows of a learned table of positions, as in GPT-3; 0 is none."""
    relative_position_buckets: Amount = 0
    """Buckets per head of T5's relative positions, in the first layer of each stack; 0 is none."""
    mtp_layers: Annotated[int, Field(ge=0, le=100)] = 0
    """Multi-token-prediction modules: each one more layer like the last, with logits.
    Not part of published parameter counts."""
    weight_dtype: Dtype = "bf16"
    """How the published weights are stored."""

    @field_validator("second_attention")
    @classmethod
    def _is_reached(
        cls, value: SecondAttentionSpec | None, info: ValidationInfo
    ) -> SecondAttentionSpec | None:
        layers = info.data.get("layers")
        if value and layers and value.every > layers:
            raise ValueError(
                f"no layer has it: there are {layers}, and it is in every {value.every}th"
            )
        return value

    @field_validator("encoder_layers")
    @classmethod
    def _needs_softmax(cls, value: int, info: ValidationInfo) -> int:
        second = info.data.get("second_attention")
        kinds = [info.data.get("attention"), second.attention if second else None]
        if value and any(
            kind and not isinstance(kind, GroupedQueryAttentionSpec) for kind in kinds
        ):
            raise ValueError("an encoder needs attention of kind gqa")
        return value

    @field_validator("dense_first_layers", "moe_every")
    @classmethod
    def _within_the_stack(cls, value: int, info: ValidationInfo) -> int:
        name = info.field_name or ""
        idle = {"dense_first_layers": 0, "moe_every": 1}[name]
        if value == idle:
            return value
        if "moe" in info.data and info.data["moe"] is None:
            raise ValueError("says which layers have experts, but there are none: give moe")
        smallest = min(_stacks(info))
        if value > smallest or (name == "dense_first_layers" and value == smallest):
            raise ValueError(f"leaves no layer with experts among {smallest}")
        if name == "moe_every" and value > smallest - info.data.get("dense_first_layers", 0):
            raise ValueError(f"leaves no layer with experts among {smallest}")
        return value

    @field_validator("ffn")
    @classmethod
    def _is_used(cls, value: FfnSpec | None, info: ValidationInfo) -> FfnSpec | None:
        if not {"moe", "dense_first_layers", "moe_every"} <= set(info.data):
            return value  # one of them is wrong already
        dense = info.data["moe"] is None
        mixed = info.data["dense_first_layers"] > 0 or info.data["moe_every"] > 1
        if value is None and dense:
            raise ValueError("give ffn, moe or both")
        if value is None and mixed:
            raise ValueError("some layers have no experts: say what they have instead")
        if value is not None and not dense and not mixed:
            raise ValueError(
                "no layer uses it, all have experts: give dense_first_layers or moe_every, "
                "or moe.parallel_dense_width for a network beside the experts"
            )
        return value

    @field_validator("relative_position_buckets")
    @classmethod
    def _has_heads(cls, value: int, info: ValidationInfo) -> int:
        attention = info.data.get("attention")
        if value and isinstance(attention, LinearAttentionSpec):
            raise ValueError("linear attention has no relative positions")
        return value


def _stacks(info: ValidationInfo) -> list[int]:
    depths = [info.data.get("layers"), info.data.get("encoder_layers")]
    return [depth for depth in depths if depth] or [10_000]
