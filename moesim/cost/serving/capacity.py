"""How many blocks of cache fit beside weights, activations and what never shows to a process."""

from dataclasses import dataclass, replace
from typing import Literal

from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.memory import (
    Weights,
    ffn_weights,
    stage_cache_bytes,
    stage_weights,
    state_bytes,
)
from moesim.model.architecture import (
    DenseFfn,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
    MoeFfn,
    layers_of,
)

MemoryOf = Literal["all", "static", "free"]
"""What an engine's memory fraction is a share of. all: the whole memory, for weights, activations
and cache (vLLM, gpu_memory_utilization); static: the whole memory, for weights and cache alone
(SGLang, mem_fraction_static); free: what weights and activations leave, for the cache
(TensorRT-LLM, free_gpu_memory_fraction)."""

VISIBLE = 0.99
"""Share of the stated memory that a process sees: 79.1 to 79.2 of 80 GiB on A100 and H100, 139.8 of
141 on H200 as torch reports it (from memory, unchecked)."""

ONE_DEVICE_BYTES = 0.25 * 2**30
"""Libraries' workspaces beside the allocator of a process that is alone: assumed, knowing that
start-up logs of vLLM 0.15.1 leave 0.4 to 1.6 GB for it, communication and activations together."""

COMMUNICATOR_BYTES = 0.5 * 2**30
"""Buffers of NCCL and of the engine's own all-reduce where there are several ranks: assumed, as
above."""

_WIDE, _FLOAT = 2.0, 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one device of the stage that leaves the fewest blocks, and those blocks."""

    capacity: float
    """As the profile states it."""
    visible: float
    """Of that, what a process sees."""
    weights: Weights
    activations: float
    """Most that is alive in an iteration of as many tokens as the budget allows."""
    communication: float
    """Buffers of the communication and workspaces of libraries."""
    room: float
    """What is left for the cache; below 0 where something does not fit."""
    bytes_per_token: float
    """Of cache."""
    blocks: int
    tokens: int
    """That the cache holds: blocks * tokens of a block."""
    missing: float
    """Bytes that lack for a single block, 0 where one fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What of an engine's settings decides about memory."""

    fraction: float
    memory_of: MemoryOf
    token_budget: int
    max_sequences: int
    block_tokens: int


def memory(on: Deployment, limits: Limits) -> Memory:
    """Return the memory of the stage that leaves the fewest blocks, which all stages then have."""
    held, cached = stage_weights(on), stage_cache_bytes(on)
    found = [_stage(w, c, on, limits) for w, c in zip(held, cached, strict=True)]
    least = min(found, key=lambda one: (one.blocks, one.room))
    lacking = ffn_missing_bytes(on, limits) if on.cut.ffn else 0.0
    if lacking <= least.missing:
        return least
    return replace(least, blocks=0, tokens=0, missing=lacking)


def ffn_missing_bytes(on: Deployment, limits: Limits) -> float:
    """Return what a device with feed-forward networks alone lacks for them; 0 where they fit.

    Beside the weights the rows of a micro-batch of all ranks' token budgets.
    """
    tokens = -(-limits.token_budget // on.cut.micro_batches)
    kinds = (layer.ffn for layer in layers_of(on.architecture.decoder))
    rows = max((_expert_bytes(one, tokens, on) for one in kinds if isinstance(one, MoeFfn)),
               default=0.0)  # fmt: skip
    asked = ffn_weights(on).total + rows + ONE_DEVICE_BYTES + COMMUNICATOR_BYTES
    return max(0.0, asked - VISIBLE * on.device.memory_capacity_bytes)


def _stage(held: Weights, per_token: float, on: Deployment, limits: Limits) -> Memory:
    """all: f V - W - A - N; static: f V - W - N; free: f (V - W - A - N).

    V visible memory, W weights, A activations, N communication.
    """
    visible = VISIBLE * on.device.memory_capacity_bytes
    working = activation_bytes(on, limits.token_budget, limits.max_sequences)
    ranks = on.cut.devices
    buffers = ONE_DEVICE_BYTES + (COMMUNICATOR_BYTES if ranks > 1 else 0.0)
    inside = held.total + buffers + (0.0 if limits.memory_of == "static" else working)
    room = limits.fraction * visible - inside
    if limits.memory_of == "free":
        room = limits.fraction * (visible - inside) if visible > inside else visible - inside
    states = state_bytes(on)
    left = room - limits.max_sequences * states if states < room else room
    block_tokens = limits.block_tokens * on.cut.dcp  # each rank has its own part of a block
    per_block = per_token * block_tokens
    if per_block:
        blocks = max(0, int(left / per_block))
    else:
        blocks = int(room / states) if states and room > 0 else int(room > 0)
    return Memory(
        capacity=on.device.memory_capacity_bytes, visible=visible, weights=held,
        activations=working, communication=buffers, room=room,
        bytes_per_token=per_token, blocks=blocks,
        tokens=blocks * block_tokens,
        missing=0.0 if blocks else max(0.0, max(per_block, states) - left),
    )  # fmt: skip


def activation_bytes(on: Deployment, tokens: int, sequences: int) -> float:
    """Return what is alive at most in an iteration of so many tokens on a rank.

    Two streams of the hidden width (the block's input and the residual), and the larger of a
    layer's largest live set and the logits: as vLLM finds it in a dummy run of the largest batch.
    """
    hidden = on.architecture.hidden
    streams = 2 * _WIDE * tokens * hidden
    stacks = (on.architecture.encoder, on.architecture.decoder)
    largest = max(_layer_bytes(one, tokens, on) for stack in stacks for one in layers_of(stack))
    return streams + max(largest, logits_bytes(on, min(tokens, sequences)))


def logits_bytes(on: Deployment, sequences: int) -> float:
    """Return the logits of so many sequences: in 16 bits, in 32, and their probabilities in 32."""
    drafted = on.drafting.tokens + 1 if on.drafting else 1
    return (_WIDE + 2 * _FLOAT) * sequences * drafted * on.architecture.vocab


def _layer_bytes(layer: Layer, tokens: int, on: Deployment) -> float:
    """Return the largest live set of attention or feed-forward network."""
    tp, hidden = on.cut.tp, on.architecture.hidden
    attention, ffn = layer.attention, layer.ffn
    live = latent = 0.0
    if isinstance(attention, GroupedQueryAttention):
        heads = max(1, attention.heads // tp) + 2 * max(1, attention.kv_heads // tp)
        live = tokens * _WIDE * (heads + max(1, attention.heads // tp)) * attention.head_dim
    if isinstance(attention, LatentAttention):  # queries, keys and values of all of its heads
        width = 2 * (attention.qk_nope_head_dim + attention.qk_rope_head_dim) + attention.v_head_dim
        latent = tokens * _WIDE * max(1, attention.heads // tp) * width
    if on.cut.ffn:
        return max(live, latent)
    if isinstance(ffn, DenseFfn):
        into = ffn.width * (2 if ffn.gated else 1) / tp
        return max(live, tokens * _WIDE * max(into + ffn.width / tp, ffn.width / tp + hidden))
    return max(live, _expert_bytes(ffn, tokens, on))


CHUNK_TOKENS = 32768
"""Tokens that go through the experts at a time (vLLM, VLLM_FUSED_MOE_CHUNK_SIZE; from memory,
unchecked)."""


def _expert_bytes(ffn: MoeFfn, tokens: int, on: Deployment) -> float:
    """Return the rows of the experts: one buffer for the wide and the last product, one between.

    Source: vLLM, layers/fused_moe/fused_moe.py, intermediate caches 1 and 3 share memory (from
    memory, unchecked). Rows are a rank's even share of those of all attention groups.
    """
    rows = min(tokens * on.cut.dp, CHUNK_TOKENS) * ffn.top_k / on.cut.ep
    width, hidden = ffn.expert_width / on.cut.expert_tp, on.architecture.hidden
    wide = max(width * (2 if ffn.gated else 1), hidden)
    out = 2 * min(tokens * on.cut.dp, CHUNK_TOKENS) * hidden
    return _WIDE * (rows * (wide + width) + out)
