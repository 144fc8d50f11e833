"""Iteration times of a deployment, from its operators priced at places and lines between them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from moesim.cost.curves import Array
from moesim.cost.iteration import TabledTimes
from moesim.cost.serving import attention as attend
from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.launches import host_s, launched
from moesim.cost.serving.layer import embedding_s, head_s, layer_s
from moesim.cost.serving.offload import offload_s
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


_CHUNKS = np.array([1, 2, *(round(2 ** (p / 2)) for p in range(4, 35))], dtype=np.float64)
"""Tokens of a chunk at which its attention is priced, half an octave apart."""

_PAST = np.array([0, *(2**p for p in range(7, 21))], dtype=np.float64)
"""Tokens before a chunk at which it is priced."""


def iteration_times(on: Deployment, host: HostTime) -> TabledTimes:
    """Return what iterations of `on` take."""
    layers = [(run.layer, run.count) for run in on.architecture.decoder]
    body = np.sum([count * _whole_s(layer, on) for layer, count in layers], axis=0)
    body = body + embedding_s(_TOKENS, on)
    head = head_s(_TOKENS, on)
    chunk = _Chunks(layers, on)

    eager_s = host_s(layers, on)

    def batch_s(tokens: int, sequences: int) -> float:
        held, in_graph = launched(tokens, sequences, on)
        passed = float(np.interp(float(held), _TOKENS, body))
        drawn = float(np.interp(float(sequences), _TOKENS, head))
        took = passed + drawn if in_graph else max(passed + drawn, eager_s)
        return took + host.iteration_s + sequences * host.sequence_s

    def decode_s(sequences: int) -> tuple[Sequence[int], Sequence[float]]:
        total = np.zeros_like(_CACHED)
        for layer, count in layers:
            total = total + count * _decode_s(layer, sequences, on)
        return [0, *(int(c) * sequences for c in _CACHED[1:])], [float(s) for s in total]

    return TabledTimes(decode_s, batch_s, chunk.seconds)


def _whole_s(layer: Layer, on: Deployment) -> Array:
    """Return a layer but for its attention kernel, and what missing experts add."""
    own = layer_s(layer, _TOKENS, on)
    return own if on.offload is None else own + offload_s(layer, _TOKENS, own, on)


@dataclass(slots=True)
class _Chunks:
    """Attention of chunks of prompts: priced on a grid, power laws of the tokens between.

    Between two places of tokens before a chunk, the mean of both by distance.
    """

    layers: list[tuple[Layer, int]]
    on: Deployment
    rows: dict[int, Array] = field(default_factory=dict)
    """Logarithms of the seconds at all chunk sizes, by the place of the tokens before."""

    def seconds(self, tokens: int, past: int) -> float:
        """Return the attention of a chunk of `tokens` after `past`, all layers."""
        after = int(np.searchsorted(_PAST, past, side="right"))
        low = _PAST[after - 1]
        here = self._at(after - 1, tokens)
        if past == low or after == len(_PAST):
            return here
        share = (past - low) / (_PAST[after] - low)
        return float(here + share * (self._at(after, tokens) - here))

    def _at(self, place: int, tokens: int) -> float:
        if place not in self.rows:
            past = np.full_like(_CHUNKS, _PAST[place])
            total = sum(
                count * _prefill_s(layer, _CHUNKS, past, self.on) for layer, count in self.layers
            )
            self.rows[place] = np.log(np.maximum(total, 1e-15))
        return float(np.exp(np.interp(np.log(tokens), np.log(_CHUNKS), self.rows[place])))


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
