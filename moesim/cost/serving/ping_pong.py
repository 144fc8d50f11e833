"""Attention and feed-forward networks on devices of their own: micro-batches go to and fro.

Attention devices hold attention, routers, embedding, head and the cache; FFN devices hold experts,
shared experts and dense networks. A batch is cut into m micro-batches. In each layer one passes
attention (a), the way to the FFN devices (d), the network (f) and the way back (c), each of which
holds one micro-batch at a time, so that a layer takes

    max(m max(a, d, f, c), a + d + f + c)

and the last micro-batch leaves min((m - 1) max, a + d + f + c - max) after that. With links that
send and receive at once both ways count apart. Source: MegaScale-Infer (arXiv 2504.02263, section
4.1, (T_a + T_f + 2 T_c) + T_f (m L - 1) where the pipeline is full; from memory, unchecked) and
Step-3 (arXiv 2507.19427, AFD; from memory, unchecked).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moesim.cost.collectives import exchange_s
from moesim.cost.curves import Array
from moesim.cost.iteration import TabledTimes
from moesim.cost.serving.deployment import Cut, Deployment
from moesim.cost.serving.launches import host_s, launched
from moesim.cost.serving.layer import beside_experts_s, embedding_s, head_s, layer_s, routed_s
from moesim.cost.serving.table import HostTime, alike, iteration_times
from moesim.model.architecture import DenseFfn, Layer, MoeFfn
from moesim.moe.fan_out import typical_reach
from moesim.moe.traffic import Destinations

_PLACES = np.unique(np.round(2.0 ** np.arange(0, 18.01, 0.25)))
"""Tokens at which stages are priced, lines between them."""

_SENT, _BACK = 1.0 + 4.0 / 128, 2.0
"""Bytes of a value on its way to an expert (fp8 with an fp32 scale for 128) and back (bf16), as in
DeepEP."""


def turns_s(layers: Sequence[tuple[Sequence[float], int]], micro_batches: int) -> float:
    """Return what micro-batches take through layers, given each kind's stages and their count."""
    longest = [(max(stages), sum(stages), count) for stages, count in layers]
    through = sum(count * max(micro_batches * top, whole) for top, whole, count in longest)
    top, whole, _ = longest[-1]
    return through + min((micro_batches - 1) * top, whole - top)


def ffn_side(on: Deployment) -> Deployment:
    """Return the FFN devices as a deployment: each takes its share of all tokens."""
    cut = on.cut
    return replace(
        on,
        cut=Cut(dp=cut.ffn, ep=cut.ep, redundant_experts=cut.redundant_experts),
    )


@dataclass(frozen=True, slots=True)
class _Stages:
    """The stages of a kind of layer but for attention's kernel, at `_PLACES` tokens.

    Of an attention group's micro-batch; the network's, of the micro-batches of all groups.
    """

    own: Array
    sent: Array
    ffn: Array
    back: Array
    count: int

    @classmethod
    def of(cls, layer: Layer, count: int, on: Deployment) -> "_Stages":
        """Return those of so many layers of a kind."""
        other, cut, ffn = ffn_side(on), on.cut, layer.ffn
        bare, beside = _apart(ffn)
        own = layer_s(replace(layer, ffn=bare), _PLACES, on)
        share = np.maximum(1.0, _PLACES / cut.ffn)
        computed = beside_experts_s(beside, share, other)
        if isinstance(ffn, MoeFfn):
            computed = computed + routed_s(layer, _PLACES, other)
        copies = _copies(ffn, on)
        sent, back = (way_s(_PLACES, copies * size, on) for size in (_SENT, _BACK))
        return cls(own, sent, computed, back, count)

    def at(self, tokens: float, everyone: float, attention_s: float) -> tuple[float, ...]:
        """Return the four stages of a micro-batch."""
        return (
            attention_s + _at(tokens, self.own), _at(tokens, self.sent),
            _at(everyone, self.ffn), _at(tokens, self.back),
        )  # fmt: skip


def _at(tokens: float, priced: Array) -> float:
    return float(np.interp(tokens, _PLACES, priced))


def _apart(ffn: DenseFfn | MoeFfn) -> tuple[MoeFfn, MoeFfn]:
    """Return what of a network stays with attention (its router), and what is beside experts."""
    if isinstance(ffn, MoeFfn):
        return replace(ffn, shared_width=0, parallel_dense_width=0), ffn
    one = MoeFfn(num_experts=1, top_k=1, expert_width=1, gated=ffn.gated)
    return one, replace(one, shared_width=ffn.width)


def _copies(ffn: DenseFfn | MoeFfn, on: Deployment) -> float:
    """Return how many FFN devices a token goes to: those of its experts, one for what is beside.

    That one is any, so it is among the others already with the probability of their share.
    """
    if isinstance(ffn, DenseFfn):
        return 1.0
    where = Destinations(
        experts=ffn.num_experts, top_k=ffn.top_k, ranks=on.cut.ep, domains=1, groups=ffn.groups,
        groups_per_token=ffn.groups_per_token, group_best=ffn.group_best,
    )  # fmt: skip
    reached = typical_reach(where).ranks * on.cut.expert_tp
    beside = ffn.shared_width or ffn.parallel_dense_width
    return reached + (1.0 - reached / on.cut.ffn if beside else 0.0)


def way_s(tokens: Array, bytes_per_token: float, on: Deployment) -> Array:
    """Return one way between both sides: what the busier of a sender and a receiver carries.

    An attention device has the tokens of its group over tp, an FFN device those of all groups over
    all of its kind.
    """
    cut, net = on.cut, on.networks["ep"]
    carried = max(1.0 / cut.tp, cut.dp / cut.ffn) * bytes_per_token * on.architecture.hidden
    away = away_share(cut, net.members if net.domains > 1 else cut.tp * cut.dp + cut.ffn)
    return np.array([
        exchange_s(carried * (1 - away) * count, carried * away * count, net)
        + on.software.kernel_launch_s for count in tokens
    ])  # fmt: skip


def away_share(cut: Cut, domain: int) -> float:
    """Return the share of pairs of an attention and an FFN device that lie in different domains.

    Attention devices come first, FFN devices after them, as a replica from the first device lies.
    """
    first = cut.tp * cut.dp
    near = 0
    for start in range(0, first + cut.ffn, domain):
        stop = min(start + domain, first + cut.ffn)
        near += max(0, min(stop, first) - start) * max(0, stop - max(start, first))
    return 1.0 - near / (first * cut.ffn)


def ping_pong_times(on: Deployment, host: HostTime) -> TabledTimes:
    """Return what iterations of `on` take.

    Attention's kernel is spread evenly over layers. What it adds to a decode step is taken for
    ranks with equally many sequences; that of prompts hides behind nothing.
    """
    alone = Cut(tp=on.cut.tp, dp=on.cut.dp, dcp=on.cut.dcp)  # asked for its attention only
    plain = iteration_times(replace(on, cut=alone), HostTime())
    layers = [_Stages.of(layer, count, on) for layer, count in alike(on.architecture)]
    many = sum(one.count for one in layers)
    ends, head = embedding_s(_PLACES, on), head_s(_PLACES, on)
    eager_s = host_s(alike(on.architecture), on)
    waits = HostTime() if on.hidden_host else host

    def whole_s(tokens: int, everyone: int, attention_s: float) -> float:
        """An iteration's layers; `attention_s` is that of a micro-batch, all layers."""
        cut = min(on.cut.micro_batches, max(1, tokens))
        each = [
            (one.at(tokens / cut, everyone / cut, attention_s / many), one.count)
            for one in layers
        ]  # fmt: skip
        return turns_s(each, cut) + _at(tokens, ends)

    def batch_s(tokens: int, sequences: int, everyone: int) -> float:
        held, in_graph = launched(tokens, sequences, on)
        device = whole_s(held, everyone + on.cut.dp * (held - tokens), 0.0)
        device += _at(sequences, head)
        return (device if in_graph else max(device, eager_s)) + waits.needs_s(sequences)

    def decode_s(sequences: int) -> tuple[Sequence[int], Sequence[float]]:
        micro = -(-sequences // min(on.cut.micro_batches, sequences))
        places, seconds = plain.decode_s(micro)
        held, _ = launched(sequences, sequences, on)
        least = whole_s(held, held * on.cut.dp, 0.0)
        added = [whole_s(held, held * on.cut.dp, one) - least for one in seconds]
        return [place // micro * sequences for place in places], added

    return TabledTimes(decode_s, batch_s, plain.attend_s, host.needs_s if on.hidden_host else None)
