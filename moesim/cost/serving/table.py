"""Iteration times of a deployment, from its operators priced at places and lines between them."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moesim.cost.curves import Array
from moesim.cost.iteration import TabledTimes
from moesim.cost.serving import attention as attend
from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.layer import ends_s, layer_s
from moesim.model.architecture import GroupedQueryAttention, LatentAttention, Layer

_TOKENS = np.array(
    [1, 2, 4, 8, 12, *range(16, 256, 16), *range(256, 1024, 64), *range(1024, 4096, 256),
     *range(4096, 16384, 1024), 16384, 24576, 32768, 65536, 131072], dtype=np.float64,
)  # fmt: skip
"""Numbers of tokens at which a layer is priced."""

_CACHED = np.array([1, *(2**p for p in range(4, 21))], dtype=np.float64)
"""Cached tokens per sequence at which a step is priced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTime:
    """What an engine's host adds to an iteration that the device waits for."""

    iteration_s: float = 0.0
    sequence_s: float = 0.0


def iteration_times(on: Deployment, host: HostTime) -> TabledTimes:
    """Return what iterations of `on` take."""
    layers = [(run.layer, run.count) for run in on.architecture.decoder]
    body = np.sum([count * layer_s(layer, _TOKENS, on) for layer, count in layers], axis=0)

    def batch_s(tokens: int, sequences: int) -> float:
        padded = float(np.interp(float(tokens), _TOKENS, body))
        ends = ends_s(np.array([float(tokens)]), np.array([float(sequences)]), on)
        return padded + float(ends[0]) + host.iteration_s + sequences * host.sequence_s

    def decode_s(sequences: int) -> tuple[Sequence[int], Sequence[float]]:
        total = np.zeros_like(_CACHED)
        for layer, count in layers:
            total = total + count * _decode_s(layer, sequences, on)
        return [0, *(int(c) * sequences for c in _CACHED[1:])], [float(s) for s in total]

    def attend_s(tokens: int, past: int) -> float:
        one, before = np.array([float(tokens)]), np.array([float(past)])
        return sum(count * float(_prefill_s(layer, one, before, on)[0]) for layer, count in layers)

    return TabledTimes(decode_s, batch_s, attend_s)


def _decode_s(layer: Layer, sequences: int, on: Deployment) -> Array:
    match layer.attention:
        case GroupedQueryAttention():
            return attend.decode_s(layer.attention, sequences, _CACHED, on)
        case LatentAttention():
            heads = max(1, layer.attention.heads // on.cut.tp)
            found = attend.latent_decode_s(sequences, _CACHED, heads, on)
            assert found is not None
            return found
        case _:
            return np.zeros_like(_CACHED)


def _prefill_s(layer: Layer, tokens: Array, past: Array, on: Deployment) -> Array:
    match layer.attention:
        case GroupedQueryAttention():
            return attend.prefill_s(layer.attention, tokens, past, on)
        case LatentAttention():
            heads = max(1, layer.attention.heads // on.cut.tp)
            found = attend.latent_prefill_s(tokens, past, heads, on)
            assert found is not None
            return found
        case _:
            return np.zeros_like(tokens)


def padded(tokens: int, sizes: Sequence[int]) -> int:
    """Return the captured graph that so many sequences run in; themselves beyond the largest."""
    at = bisect_left(sizes, tokens)
    return sizes[at] if at < len(sizes) else tokens
