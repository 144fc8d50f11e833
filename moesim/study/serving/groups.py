"""Where an iteration goes: seconds by group of operators, of decoding and of prompts.

Every group is priced at the numbers of tokens at which iterations are (`PRICED_AT`), with straight
lines between, so that together they are the iteration.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from moesim.cost.curves import Array
from moesim.cost.exchange_overlap import together_s
from moesim.cost.iteration import PS_PER_S, IterationTimes, step_ps
from moesim.cost.serving.deployment import Deployment
from moesim.cost.serving.exchange import all_reduce_s
from moesim.cost.serving.launches import launched
from moesim.cost.serving.layer import embedding_s, exchanged_s, head_s, layer_s, routed_s
from moesim.cost.serving.offload import offload_s
from moesim.cost.serving.products import gemm_s
from moesim.cost.serving.table import PRICED_AT, iteration_times
from moesim.cost.two_streams import interference
from moesim.model.architecture import DenseFfn, Layer, MoeFfn
from moesim.study.serving.host import host_time

BATCHES = (1, 8, 32, 128, 256)
"""Sequences that decode at the same time on a rank."""

ROUTED = ("experts", "missing experts")
"""Groups whose time follows the tokens of all ranks."""

_EXCHANGE = "exchange of tokens"
_UNHIDDEN, _IN_TURN = "attention, where nothing hides it", "micro-batches in turn"
_ROUNDING = 1e-6
"""Share of an iteration that is a difference of rounding."""

Groups = dict[str, float]


def decode_groups(
    on: Deployment, times: IterationTimes, context_tokens: int, batches: Iterable[int]
) -> Mapping[int, Groups]:
    """Return seconds by group of a decode iteration, for each number of sequences.

    As many decode on each attention data parallel rank, with `context_tokens` in the cache each.
    What no group explains of an iteration is the host's, and padding to a captured graph.
    """
    if on.cut.ffn:
        return {batch: _in_turn(batch, times, context_tokens, on) for batch in batches}
    priced = _Priced.of(on)
    return {batch: _decode(priced, times, batch, context_tokens) for batch in batches}


def prompt_groups(on: Deployment, times: IterationTimes, tokens: int) -> Groups:
    """Return seconds by group of an iteration that computes `tokens` of one prompt on each rank.

    With an encoder these are the groups of the decoder's first token; what the encoder takes beside
    attention, with keys and values for the decoder, is not told from the host that launches it.
    """
    whole = times.common_ps(tokens, 1, tokens * on.cut.dp) / PS_PER_S
    attention = times.chunks_ps([(tokens, 0)]) / PS_PER_S
    whole = max(whole, times.least_ps(1) / PS_PER_S - attention)
    if on.cut.ffn:
        return {_UNHIDDEN: attention, _IN_TURN: whole}
    guesses = 0 if on.drafting is None else on.drafting.tokens
    priced = _Priced.of(on)
    if on.architecture.encoder:
        begun = _told(priced.parts(1, 1), whole, attention)
        encoder = begun.pop("host")
        return {**begun, "encoder and host": encoder}
    parts = priced.parts(tokens + guesses, 1 + guesses)
    if guesses:
        checked = iteration_times(replace(on, drafting=None), host_time(on.software))
        more = checked.common_ps(tokens + guesses, 1 + guesses) / PS_PER_S
        own = checked.chunks_ps([(tokens, 0)]) / PS_PER_S
        parts["guesses"] = whole - more + attention - own
        whole, attention = more, own
    return _told(parts, whole, attention)


def _in_turn(batch: int, times: IterationTimes, context_tokens: int, on: Deployment) -> Groups:
    """Return an iteration of micro-batches that go to and fro: what attention's kernel adds."""
    attention = step_ps(times.attention(batch), batch * context_tokens) / PS_PER_S
    whole = times.common_ps(batch, batch, batch * on.cut.dp) / PS_PER_S
    whole = max(whole, times.least_ps(batch) / PS_PER_S - attention)
    return {_UNHIDDEN: attention, _IN_TURN: whole}


def _decode(
    priced: "_Priced", times: IterationTimes, batch: int, context_tokens: int
) -> Groups:  # fmt: skip
    on = priced.on
    whole = times.common_ps(batch, batch, batch * on.cut.dp) / PS_PER_S
    cached = batch * context_tokens
    attention = step_ps(times.attention(batch), cached) / PS_PER_S
    each = 1 if on.drafting is None else on.drafting.tokens + 1
    parts = priced.parts(batch * each, batch * each)
    waits = max(0.0, times.least_ps(batch) / PS_PER_S - whole - attention)
    if each > 1:
        checked = iteration_times(replace(on, drafting=None), host_time(on.software))
        more = checked.common_ps(batch * each, batch * each) / PS_PER_S
        own = step_ps(checked.attention(batch), cached) / PS_PER_S
        parts["guesses"] = whole - more + attention - own
        whole, attention = more, own
    return _told(parts, whole + waits, attention)


def _told(parts: Groups, whole: float, attention: float) -> Groups:
    """Return the groups with attention first and the host last, without differences of rounding."""
    explained = sum(seconds for name, seconds in parts.items() if name != "guesses")
    found = {"attention": attention, **parts, "host": whole - explained}
    least = _ROUNDING * (whole + attention)
    return {name: s if s > least else 0.0 for name, s in found.items()}


@dataclass(frozen=True, slots=True)
class _Priced:
    """Everything but attention by group, at the numbers of tokens of PRICED_AT."""

    on: Deployment
    groups: dict[str, Array]
    head: Array

    @classmethod
    def of(cls, on: Deployment) -> "_Priced":
        """Return all layers of a deployment."""
        tokens = np.array(PRICED_AT)
        groups: dict[str, Array] = {}
        for run in on.architecture.decoder:
            for name, seconds in _layer(run.layer, tokens, on).items():
                groups[name] = groups.get(name, np.zeros_like(tokens)) + run.count * seconds
        groups["embedding"] = embedding_s(tokens, on)
        return cls(on, groups, head_s(tokens, on))

    def parts(self, tokens: int, sequences: int) -> Groups:
        """Return the groups of an iteration with so many tokens on each rank.

        Of two halves of a batch side by side, an exchange takes what is not hidden.
        """
        on = self.on
        held, _ = launched(tokens, sequences, on)
        everyone = on.cut.dp * held
        halves = 2 if on.overlap == "two_batch" and on.cut.dp > 1 else 1
        found = {
            name: halves * self._at((everyone if name in ROUTED else held) / halves, seconds)
            for name, seconds in self.groups.items()
        }
        if halves > 1:
            sent = found[_EXCHANGE]
            compute = sum(found.values()) - sent
            cost = interference(on.device, on.software)
            found[_EXCHANGE] = together_s(compute, sent, cost) - compute
        return {**found, "head": self._at(sequences, self.head)}

    @staticmethod
    def _at(tokens: float, priced: Array) -> float:
        return float(np.interp(float(tokens), PRICED_AT, priced))


def _layer(layer: Layer, tokens: Array, on: Deployment) -> dict[str, Array]:
    """Return a layer without its attention kernel by group; together they are the whole layer."""
    own = layer_s(layer, tokens, on)
    ffn = layer.ffn
    reduced, crossed = all_reduce_s(tokens, on), int(layer.cross_attention is not None)
    if not isinstance(ffn, MoeFfn):
        parts = {"dense FFN": _dense(layer, ffn, tokens, on), "all-reduce": (2 + crossed) * reduced}
        return {"projections and norms": _rest(own, parts), **parts}
    bare = replace(ffn, shared_width=0, parallel_dense_width=0)
    parts = {
        "router": gemm_s(tokens, ffn.num_experts, on.architecture.hidden, "bf16", on),
        "dense FFN": own - layer_s(replace(layer, ffn=bare), tokens, on),
        "all-reduce": (1 + crossed) * reduced,
    }
    experts = routed_s(layer, tokens, on)
    beside = layer_s(layer, np.maximum(1.0, tokens / on.cut.dp), on)
    return {
        "projections and norms": _rest(own, parts), **parts, "experts": experts,
        "missing experts": offload_s(layer, tokens, beside + experts, on),
        _EXCHANGE: exchanged_s(layer, tokens, on),
    }  # fmt: skip


def _rest(own: Array, parts: dict[str, Array]) -> Array:
    return np.maximum(0.0, own - sum(parts.values(), np.zeros_like(own)))


def _dense(layer: Layer, ffn: DenseFfn, tokens: Array, on: Deployment) -> Array:
    """Return a dense network: what a layer takes longer that has it beside its one expert."""
    beside = MoeFfn(num_experts=1, top_k=1, expert_width=1, shared_width=ffn.width, gated=ffn.gated)
    without = replace(beside, shared_width=0)
    return layer_s(replace(layer, ffn=beside), tokens, on) - layer_s(
        replace(layer, ffn=without), tokens, on
    )
