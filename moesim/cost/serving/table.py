"""Iteration times of a deployment, from its operators priced at places and lines between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from moesim.cost.curves import Array
from moesim.cost.exchange_overlap import together_s
from moesim.cost.iteration import TabledTimes
from moesim.cost.serving import attention as attend
from moesim.cost.serving.context import gathered_s, spread_decode_s
from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.launches import host_s, launched
from moesim.cost.serving.layer import embedding_s, exchanged_s, head_s, layer_s, routed_s
from moesim.cost.serving.linear import scan_s
from moesim.cost.serving.offload import offload_s
from moesim.cost.two_streams import interference
from moesim.model.architecture import (
    Architecture,
    GroupedQueryAttention,
    LatentAttention,
    Layer,
    LinearAttention,
)

_TOKENS = np.array(
    [1, 2, 4, 8, 12, *range(16, 256, 16), *range(256, 1024, 64), *range(1024, 4096, 256),
     *range(4096, 16384, 1024), 16384, 24576, 32768, 65536, 131072, 262144], dtype=np.float64,
)  # fmt: skip
"""Numbers of tokens at which a layer is priced."""

PRICED_AT = tuple(float(count) for count in _TOKENS)
"""The same, for who takes an iteration apart."""

_CACHED = np.array([1, *(2**p for p in range(4, 21))], dtype=np.float64)
"""Cached tokens per sequence at which a step is priced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTime:
    """What an engine's host needs for an iteration.

    The device waits for it, unless the engine prepares the next iteration while the device computes
    (`Deployment.hidden_host`): an iteration then takes the longer of the two.
    """

    iteration_s: float = 0.0
    """Of every iteration: scheduling, inputs, sampling."""
    sequence_s: float = 0.0
    """Of every sequence that gets a token: its place in the schedule, its inputs, its token."""
    request_s: float = 0.0
    """Of each request, beside the engine: until it has the prompt as tokens, and until the client
    has the first token. No device waits for it."""

    def needs_s(self, sequences: int) -> float:
        """Return what the host needs for an iteration of so many sequences."""
        return self.iteration_s + sequences * self.sequence_s


_CHUNKS = np.array([1, 2, *(round(2 ** (p / 2)) for p in range(4, 35))], dtype=np.float64)
"""Tokens of a chunk at which its attention is priced, half an octave apart."""

_PAST = np.array([0, *(2**p for p in range(7, 21))], dtype=np.float64)
"""Tokens before a chunk at which it is priced."""


def iteration_times(on: Deployment, host: HostTime) -> TabledTimes:
    """Return what iterations of `on` take."""
    layers = alike(on.architecture)
    rest = _Rest.of(layers, on)
    head = head_s(_TOKENS, on)
    chunk = _Chunks(layers, on)
    eager_s = host_s(layers, on)
    waits = HostTime() if on.hidden_host else host

    def batch_s(tokens: int, sequences: int, everyone: int) -> float:
        held, in_graph = launched(tokens, sequences, on)
        drawn = float(np.interp(float(sequences), _TOKENS, head))
        device = rest.seconds(held, everyone + on.cut.dp * (held - tokens)) + drawn
        if not in_graph:
            device = max(device, eager_s)
        return device + waits.needs_s(sequences)

    def decode_s(sequences: int) -> tuple[Sequence[int], Sequence[float]]:
        total = np.zeros_like(_CACHED)
        for layer, count in layers:
            total = total + count * _decode_s(layer, sequences, on)
        return [0, *(int(c) * sequences for c in _CACHED[1:])], [float(s) for s in total]

    return TabledTimes(decode_s, batch_s, chunk.seconds, host.needs_s if on.hidden_host else None)


def alike(architecture: Architecture) -> list[tuple[Layer, int]]:
    """Return each kind of layer once, with how many there are: those that alternate are two."""
    found: dict[Layer, int] = {}
    for run in architecture.decoder:
        found[run.layer] = found.get(run.layer, 0) + run.count
    return list(found.items())


def on_grid(priced: Callable[[Array], Array]) -> Callable[[float], float]:
    """Return a price by tokens: asked once at places, straight lines between."""
    values = priced(_TOKENS)
    return lambda tokens: float(np.interp(tokens, _TOKENS, values))


def pass_s(layers: list[tuple[Layer, int]], on: Deployment) -> Callable[[int], float]:
    """Return what a number of tokens takes through these layers, without attention and head.

    Of one attention group: nobody else has tokens.
    """
    rest = _Rest.of(layers, on)
    return lambda tokens: rest.seconds(tokens, tokens)


@dataclass(frozen=True, slots=True)
class _Rest:
    """Everything but attention and the head, priced at numbers of tokens, lines between them."""

    own: Array
    """What a rank computes for its own tokens."""
    routed: Array
    """What the fullest rank's experts compute for the tokens of all."""
    sent: Array
    on: Deployment

    @classmethod
    def of(cls, layers: list[tuple[Layer, int]], on: Deployment) -> "_Rest":
        """Return all layers of a deployment."""
        own = np.sum([count * layer_s(layer, _TOKENS, on) for layer, count in layers], axis=0)
        routed = np.sum([count * _routed_s(layer, on) for layer, count in layers], axis=0)
        sent = np.sum([count * exchanged_s(layer, _TOKENS, on) for layer, count in layers], axis=0)
        return cls(own + embedding_s(_TOKENS, on), routed, sent, on)

    def seconds(self, tokens: int, everyone: int) -> float:
        """Return an iteration with so many tokens on the fullest rank and on all.

        Two halves of a batch one beside the other: each computes while the other's tokens travel.
        Attention is not counted as something that these hide behind.
        """
        halves = 2 if self.on.overlap == "two_batch" and self.on.cut.dp > 1 else 1
        compute = self._at(tokens / halves, self.own) + self._at(everyone / halves, self.routed)
        sent = self._at(tokens / halves, self.sent)
        if halves == 1:
            return compute + sent
        cost = interference(self.on.device, self.on.software)
        return together_s(halves * compute, halves * sent, cost)

    @staticmethod
    def _at(tokens: float, priced: Array) -> float:
        return float(np.interp(tokens, _TOKENS, priced))


def _routed_s(layer: Layer, on: Deployment) -> Array:
    """Return the routed experts for the tokens of all ranks, and what missing ones add."""
    routed = routed_s(layer, _TOKENS, on)
    if on.offload is None:
        return routed
    own = layer_s(layer, np.maximum(1.0, _TOKENS / on.cut.dp), on)
    return routed + offload_s(layer, _TOKENS, own + routed, on)


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
    if on.cut.dcp > 1 and not isinstance(layer.attention, LinearAttention):
        return spread_decode_s(layer.attention, sequences, _CACHED, on)
    match layer.attention:
        case GroupedQueryAttention():
            own = attend.decode_s(layer.attention, sequences, _CACHED, on)
            return own + _second_s(layer, sequences, on)
        case LatentAttention():
            heads = max(1, layer.attention.heads // on.cut.tp)
            return attend.latent_decode_s(layer.attention, sequences, _CACHED, heads, on=on)
        case LinearAttention():
            return np.full_like(_CACHED, scan_s(layer.attention, sequences, sequences, on))


def _second_s(layer: Layer, sequences: int, on: Deployment) -> float:
    """Return the cross-attention of a step but for its bytes, which are among the cached tokens."""
    if layer.cross_attention is None:
        return 0.0
    return float(attend.decode_s(layer.cross_attention, sequences, np.ones(1), on)[0])


def _prefill_s(layer: Layer, tokens: Array, past: Array, on: Deployment) -> Array:
    match layer.attention:
        case GroupedQueryAttention():
            found = attend.prefill_s(layer.attention, tokens, past, on)
            return found + gathered_s(layer.attention, tokens, past, on)
        case LatentAttention():
            heads = max(1, layer.attention.heads // on.cut.tp)
            found = attend.latent_prefill_s(layer.attention, tokens, past, heads, on=on)
            return found + gathered_s(layer.attention, tokens, past, on)
        case LinearAttention():
            return np.array([scan_s(layer.attention, 1, int(count), on) for count in tokens])
