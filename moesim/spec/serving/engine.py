"""The inference engine: its limits and habits, and the number formats it runs a model in."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from moesim.spec.base import Listed, Spec
from moesim.spec.serving.speculative import SpeculativeSpec

Format = Literal[
    "bf16", "fp16", "fp8", "fp8_block128", "nvfp4", "w4a16_mxfp4", "w4a8_mxfp4_mxfp8",
    "int8", "int8_weight_only", "int4_weight_only",
    "qmoe",
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

    @model_validator(mode="after")
    def _check(self) -> "FormatsSpec":
        for name in ("weights", "attention", "dense", "head"):
            if getattr(self, name) == "qmoe":
                raise ValueError(f"{name}: qmoe is a code for experts; write it at experts alone")
        return self


class EngineSpec(Spec):
    """An engine by name and version; what is left out is that version's default."""

    name: Literal["vllm", "sglang", "tensorrt-llm"] = "vllm"
    """Whose habits and defaults hold."""
    version: Annotated[str, Field(max_length=50)] | None = None
    """Left out, the newest that moesim knows."""
    batching: Literal["mixed", "prefill_first", "whole_prompts", "static"] | None = None
    """mixed: decoding first, chunks of prompts in what is left of the token budget; prefill_first:
    chunks of prompts alone first; whole_prompts: prompts only whole; static: the next batch when
    all of the last have finished. With a model that has an encoder whole_prompts, or static."""
    max_sequences: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Requests that run at the same time."""
    token_budget: Annotated[int, Field(ge=1, le=10**7)] | None = None
    """Tokens that an iteration computes at most."""
    block_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Tokens in a block of the cache."""
    memory_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """What the engine's own key of that name is a share of: vllm: of the memory, for weights,
    activations and cache; sglang: of the memory, for weights and cache; tensorrt-llm: of what
    weights and activations leave, for the cache."""
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
    prefix_caching: bool | None = None
    """Keep blocks of prompts for requests that begin alike; left out, as the engine does."""
    graphs: bool | None = None
    """Launch decoding as CUDA graphs, as all three engines do; without them the host launches every
    kernel."""
    graph_sizes: Listed[Annotated[int, Field(ge=1, le=10**6)]] | None = None
    """Numbers of tokens with a graph, rising: others run padded to the next one."""
    async_scheduling: bool | None = None
    """Let the host prepare an iteration while the device computes the one before (vllm:
    --async-scheduling; sglang: overlap schedule; tensorrt-llm: overlap scheduler); left out, as the
    engine does."""
    speculative: SpeculativeSpec | None = None
    """Guess tokens ahead and check them together."""

    @model_validator(mode="after")
    def _check(self) -> "EngineSpec":
        sizes = self.graph_sizes
        if sizes is not None and (not sizes or list(sizes) != sorted(set(sizes))):
            raise ValueError("graph_sizes must rise, and be one at least; graphs: false is without")
        if sizes is not None and self.graphs is False:
            raise ValueError("graph_sizes has no effect with graphs: false; leave one out")
        return self
