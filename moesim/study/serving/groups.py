"""Where a decode iteration goes: seconds by group of operators, at a few batch sizes."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from moesim.cost.curves import Array
from moesim.cost.iteration import PS_PER_S, IterationTimes, step_ps
from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.exchange import all_reduce_s, brought_s
from moesim.cost.serving.layer import embedding_s, head_s, layer_s, routed_s
from moesim.cost.serving.products import gemm_s
from moesim.model.architecture import DenseFfn, Layer, MoeFfn

BATCHES = (1, 8, 32, 128, 256)
"""Sequences that decode at the same time."""

_ROUNDING = 1e-6
"""Share of an iteration that is a difference of rounding."""


def groups(
    on: Deployment, times: IterationTimes, context_tokens: int
) -> Mapping[int, dict[str, float]]:
    """Return seconds by group of a decode iteration, for each number of BATCHES.

    As many decode on each attention data parallel rank, with `context_tokens` in the cache each.
    What no group explains of an iteration is the host's.
    """
    if on.cut.ffn:
        return {batch: _in_turn(batch, times, context_tokens, on) for batch in BATCHES}
    tokens = np.array(BATCHES, dtype=np.float64)
    parts: dict[str, Array] = {}
    for run in on.architecture.decoder:
        for name, seconds in _layer(run.layer, tokens, on).items():
            parts[name] = parts.get(name, np.zeros_like(tokens)) + run.count * seconds
    parts["embedding"] = embedding_s(tokens, on)
    parts["head"] = head_s(tokens, on)
    found = {}
    for place, batch in enumerate(BATCHES):
        attention = step_ps(times.attention(batch), batch * context_tokens) / PS_PER_S
        own = {name: float(seconds[place]) for name, seconds in parts.items()}
        whole = times.common_ps(batch, batch, batch * on.cut.dp) / PS_PER_S
        parts_of = {"attention": attention, **own, "host": whole - sum(own.values())}
        least = _ROUNDING * (whole + attention)
        found[batch] = {name: s if s > least else 0.0 for name, s in parts_of.items()}
    return found


def _in_turn(
    batch: int, times: IterationTimes, context_tokens: int, on: Deployment
) -> dict[str, float]:
    """Return an iteration of micro-batches that go to and fro: what attention's kernel adds."""
    attention = step_ps(times.attention(batch), batch * context_tokens) / PS_PER_S
    whole = times.common_ps(batch, batch, batch * on.cut.dp) / PS_PER_S
    return {"attention, where nothing hides it": attention, "micro-batches in turn": whole}


def _layer(layer: Layer, tokens: Array, on: Deployment) -> dict[str, Array]:
    """Return a layer without its attention kernel by group; together they are the whole layer."""
    bare_s = layer_s(layer, tokens, on)
    routed = routed_s(layer, tokens * on.cut.dp, on)
    whole = bare_s + routed
    ffn = layer.ffn
    reduced = all_reduce_s(tokens, on)
    if isinstance(ffn, MoeFfn):
        bare = replace(ffn, shared_width=0, parallel_dense_width=0)
        beside = bare_s - layer_s(replace(layer, ffn=bare), tokens, on)
        parts = {
            "router": gemm_s(tokens, ffn.num_experts, on.architecture.hidden, "bf16", on),
            "experts": routed,
            "exchange of tokens": brought_s(tokens, ffn, on),
            "dense FFN": beside,
            "all-reduce": reduced,
        }
    else:
        parts = {"dense FFN": _dense(layer, ffn, tokens, on), "all-reduce": 2 * reduced}
    rest = whole - sum(parts.values(), np.zeros_like(tokens))
    return {"projections and norms": np.maximum(0.0, rest), **parts}


def _dense(layer: Layer, ffn: DenseFfn, tokens: Array, on: Deployment) -> Array:
    """Return a dense network: what a layer takes longer that has it beside its one expert."""
    beside = MoeFfn(num_experts=1, top_k=1, expert_width=1, shared_width=ffn.width, gated=ffn.gated)
    without = replace(beside, shared_width=0)
    return layer_s(replace(layer, ffn=beside), tokens, on) - layer_s(
        replace(layer, ffn=without), tokens, on
    )
