"""The inference engine: its limits and habits, and the number formats it runs a model in."""

from typing import Annotated, Literal

from pydantic import Field

from moesim.spec.base import Spec

Format = Literal[
    "bf16", "fp16", "fp8", "fp8_block128", "nvfp4", "w4a16_mxfp4", "w4a8_mxfp4_mxfp8",
    "int8", "int8_weight_only", "int4_weight_only",
]  # fmt: skip


class FormatsSpec(Spec):
    """Number formats of weights by component; `weights` holds for what is left out."""

    weights: Format = "bf16"
    """Projections of attention, dense networks and experts. fp8 has one scale per tensor."""
    attention: Format | None = None
    """Projections of attention."""
    dense: Format | None = None
    """Dense feed-forward networks and shared experts."""
    experts: Format | None = None
    """Routed experts."""
    head: Format = "bf16"
    """The projection to the vocabulary."""
    cache: Literal["bf16", "fp8"] = "bf16"
    """Keys and values."""


class EngineSpec(Spec):
    """An engine by name and version; what is left out is that version's default."""

    name: Literal["vllm", "sglang", "tensorrt-llm"] = "vllm"
    """Whose habits and defaults hold."""
    version: Annotated[str, Field(max_length=50)] | None = None
    """Left out, the newest that moesim knows."""
    batching: Literal["mixed", "prefill_first", "whole_prompts", "static"] | None = None
    """mixed: decoding first, chunks of prompts in what is left of the token budget; prefill_first:
    chunks of prompts alone first; whole_prompts: prompts only whole; static: the next batch when
    all of the last have finished."""
    max_sequences: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Requests that run at the same time."""
    token_budget: Annotated[int, Field(ge=1, le=10**7)] | None = None
    """Tokens that an iteration computes at most."""
    block_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Tokens in a block of the cache."""
    memory_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the device memory that weights, activations and cache may take."""
    balance_steps: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """With parallel.dp above 1: steps for which prompts wait until all ranks have one, so that they
    are computed together; 0 does not wait."""
    overlap: Literal["none", "shared_expert", "two_batch"] = "none"
    """With parallel.dp above 1: what runs while tokens travel to their experts and back: nothing,
    shared experts, or the other half of the batch (which costs more than it hides in small ones).
    """
    reserve_output: bool | None = None
    """Take a request only when there is room for all tokens that it may put out."""
    max_model_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Tokens of prompt and output together that a request may have; longer ones are rejected. Left
    out, only the cache sets a limit."""
