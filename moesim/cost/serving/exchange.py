"""What ranks send each other in a layer: sums over tensor parallel ranks, tokens to experts."""

import numpy as np

from moesim.cost import fitted_transfers as curves
from moesim.cost.collectives import Network, collective_s, exchange_s
from moesim.cost.curves import Array, predict_s
from moesim.cost.families import exchange
from moesim.cost.families.custom_all_reduce import CUSTOM_ALL_REDUCE
from moesim.cost.fitted import Found
from moesim.cost.serving.deployment import Deployment
from moesim.model.architecture import MoeFfn
from moesim.model.operators import CollectiveKind
from moesim.moe.fan_out import typical_reach
from moesim.moe.traffic import Destinations

_WIDE = 2.0
"""Bytes of an activation: bf16."""

_FP8 = 1.0 + 4.0 / 128
"""Bytes of a dispatched value: fp8 with an fp32 scale for 128 (DeepEP)."""

ONE_SHOT_BYTES = 8 * 2**20
"""Largest message that engines sum with kernels of their own instead of NCCL (vLLM,
distributed/device_communicators/custom_all_reduce.py, max_size = 8192 * 1024; from memory)."""

LOW_LATENCY_TOKENS = 128.0
"""Tokens of a rank up to which low-latency kernels are taken (DeepEP README,
num_max_dispatch_tokens_per_rank of its decoding example)."""


def all_reduce_s(tokens: Array, on: Deployment) -> Array:
    """Return the sum of a layer's output over the tensor parallel ranks."""
    return summed_s(tokens * (_WIDE * on.architecture.hidden), on.networks["tp"], on)


def brought_s(tokens: Array, ffn: MoeFfn, on: Deployment) -> Array:
    """Return what it takes to bring a group's tokens to their experts and the results back.

    One group of ranks has all tokens already, so that only results are summed. Groups of their own
    send; each of a group's ranks a share of its tokens.
    """
    payload = tokens * (_WIDE * on.architecture.hidden)
    net, mode = on.networks["ep"], on.cut.exchange
    if on.cut.dp == 1:
        return summed_s(payload, net, on)
    if mode == "allgather_reducescatter":
        gathered = payload * on.cut.dp
        return each_s("all_gather", gathered, net, on) + each_s("reduce_scatter", gathered, net, on)
    own = tokens / on.cut.tp
    if mode == "one_sided":
        return _one_sided_s(own, ffn, on)
    if mode == "deepep_low":
        return _deepep_s("direct", own, ffn, on)
    normal = _deepep_s("forwarded", own, ffn, on)
    if mode == "deepep_normal":
        return normal
    return np.where(own <= LOW_LATENCY_TOKENS, _deepep_s("direct", own, ffn, on), normal)


def _deepep_s(family: str, tokens: Array, ffn: MoeFfn, on: Deployment) -> Array:
    """Return dispatch in fp8 and combine in bf16 by DeepEP's kernels."""
    mode = "low_latency" if family == "direct" else "high_throughput"
    total = np.zeros_like(tokens)
    for phase, number, size in (("dispatch", "fp8_block128", _FP8), ("combine", "bf16", _WIDE)):
        total = total + _phase_s(family, f"{mode} {phase}", (number, size), tokens, ffn, on=on)
    return total


def _one_sided_s(tokens: Array, ffn: MoeFfn, on: Deployment) -> Array:
    """Return dispatch and combine over one NVLink domain, by TensorRT-LLM's one-sided kernels."""
    total = np.zeros_like(tokens)
    for phase, numbers, size in (
        ("dispatch", ("nvfp4", "fp8", "bf16"), _FP8), ("combine", ("bf16",), _WIDE),
    ):  # fmt: skip
        role = f"high_throughput {phase} NVLinkOneSided"
        number = next((n for n in numbers if _curve("distinct", role, n, on)), numbers[-1])
        total = total + _phase_s("distinct", role, (number, size), tokens, ffn, on=on)
    return total


_FAMILIES = {family.name: family for family in exchange.FAMILIES}


def _phase_s(
    family: str, role: str, number: tuple[str, float], tokens: Array, ffn: MoeFfn, *,
    on: Deployment,
) -> Array:  # fmt: skip
    """Return one way by the curve of its kernels, else bytes at the links' assumed rates."""
    net = on.networks["ep"]
    if net.domains > 1:
        role += {"infiniband": " over nodes", "efa": " over EFA"}.get(net.fabric, " nowhere")
    found = _curve(family, role, number[0], on)
    reach = typical_reach(_where(ffn, net))
    row = number[1] * on.architecture.hidden
    if found is None:
        copies = ffn.top_k if family == "direct" else reach.ranks
        away = (ffn.top_k if family == "direct" else reach.domains) * (1 - 1 / net.domains)
        return np.array([
            exchange_s(copies * row * count, away * row * count, net) for count in tokens
        ])  # fmt: skip
    samples = {
        "tokens": tokens, "hidden": np.full_like(tokens, on.architecture.hidden),
        "top_k": np.full_like(tokens, ffn.top_k), "experts": np.full_like(tokens, ffn.num_experts),
        "ranks": np.full_like(tokens, net.size), "domains": np.full_like(tokens, net.domains),
        "row_bytes": np.full_like(tokens, row), "skew": np.ones_like(tokens),
        "network_bytes_per_s": np.full_like(tokens, net.fabric_bytes_per_s or np.inf),
        "distinct_ranks": np.full_like(tokens, reach.ranks),
        "distinct_domains": np.full_like(tokens, reach.domains),
    }  # fmt: skip
    return exchange.seconds(_FAMILIES[family], found.curve, samples, on.chip)


def _curve(family: str, role: str, number: str, on: Deployment) -> Found | None:
    return on.kernels.first(number, (family, role))


def _where(ffn: MoeFfn, net: Network) -> Destinations:
    return Destinations(
        experts=ffn.num_experts, top_k=ffn.top_k, ranks=net.size, domains=net.domains,
        groups=ffn.groups, groups_per_token=ffn.groups_per_token, group_best=ffn.group_best,
    )  # fmt: skip


def summed_s(payloads: Array, net: Network, on: Deployment) -> Array:
    """Return an all-reduce: by the engine's own kernel where it is small and quicker, else NCCL."""
    nccl = each_s("all_reduce", payloads, net, on)
    found = on.kernels.kind("bf16", "custom_all_reduce", "")
    if found is None or net.domains > 1 or net.kind != "switch" or net.size == 1:
        return nccl
    samples = {"bytes": payloads, "ranks": np.full_like(payloads, net.size)}
    own = predict_s(CUSTOM_ALL_REDUCE, found.curve, samples, on.chip)
    return np.where(payloads <= ONE_SHOT_BYTES, np.minimum(own, nccl), nccl)


def each_s(kind: CollectiveKind, payloads: Array, net: Network, on: Deployment) -> Array:
    """Return a collective of each of many payloads, as gathered or before they are summed."""
    if net.size == 1:
        return np.zeros_like(payloads)
    return np.array([_once(kind, float(payload), net, on) for payload in payloads])


def _once(kind: CollectiveKind, payload: float, net: Network, on: Deployment) -> float:
    known = curves.collective(kind, payload, net, on.kernels)
    if known is not None:
        return known.seconds
    return collective_s(kind, payload, net) + on.software.kernel_launch_s
