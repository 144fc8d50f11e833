"""Seconds of collectives and of dispatch and combine by fitted curves; None where none fits.

Curves were measured behind NVSwitch, so meshes, tori and PCIe keep the closed forms. Between
domains a curve counts only on the fabric that it was measured on. Of what was never measured there,
a relative tells: gather and scatter are the halves of an all-reduce, a broadcast is a gather, and a
send is an all-to-all of two.
"""

import math
from dataclasses import replace

import numpy as np

from moesim.cost import calibrated_kernels as calibrated
from moesim.cost.collectives import Network
from moesim.cost.curves import Array, Family, uncertainty
from moesim.cost.families import collectives, exchange
from moesim.cost.fitted import Found, Kernels
from moesim.cost.times import ASSUMED_UNCERTAINTY, Known
from moesim.cost.transferred import DEVIATION_PER_MEDIAN
from moesim.model.operators import CollectiveKind, Exchange
from moesim.moe.fan_out import typical_reach
from moesim.moe.traffic import Destinations

_NAMES: dict[CollectiveKind, str] = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "all_to_all": "alltoall",
    "broadcast": "broadcast",
    "send": "send",
}

_EXCHANGED_OVER = {"infiniband": " over nodes", "efa": " over EFA"}
"""Endings of the roles of dispatch and combine by fabric; on others nothing was measured."""

_ENOUGH_ROWS = 12
_BETWEEN_DOMAINS_ERROR = 0.165
"""Median error of all-reduce between nodes where enough rows were left out to judge it (H100, EFA;
0.10 on A100, 0.20 on B200). A curve moved to one or two published sizes of another fabric hits
these, and says nothing better of all other sizes."""

_RELATIVES_ERROR = {"all_gather": 0.30, "reduce_scatter": 0.30, "broadcast": 0.30, "send": 0.54}
"""Median error of what a relative tells, where both were measured: inside a domain. Half of an
all-reduce against gather and scatter: 0.28 and 0.30 over 632 and 682 sizes of 7 devices (0.14 and
0.16 above 10 MB); an all-to-all of two ranks against a send: 0.54 on H100. Nothing says how near a
broadcast comes to a gather; it is taken to be as far off."""

_FAMILIES: dict[str, Family] = {
    family.name: family for family in (*collectives.FAMILIES, *exchange.FAMILIES)
}


def collective(
    kind: CollectiveKind, payload_bytes: float, net: Network, kernels: Kernels
) -> Known | None:
    """Return what is known of a collective among the ranks of `net`, or None without a curve."""
    if net.size == 1 or not payload_bytes:
        return Known(0.0, "fitted", 0.0)
    key = (kind, payload_bytes, net)
    if key not in kernels.memo:
        kernels.memo[key] = _collective(kind, payload_bytes, net, kernels)
    return kernels.memo[key]


def _collective(
    kind: CollectiveKind, payload_bytes: float, net: Network, kernels: Kernels
) -> Known | None:
    found = _curve(kind, net, kernels)
    if kernels.chip.link_bytes_per_s <= 0.0:
        return None
    if found is None:
        return _by_relative(kind, payload_bytes, net, kernels)
    if found.curve.family == "simple_collective":
        return calibrated.known(found, _wire(kind, payload_bytes, net), kernels)
    if net.kind != "switch" or net.on_torus:
        return None
    family = collectives.laid_out(_FAMILIES[found.curve.family], found.curve)
    samples = _columns(
        bytes=payload_bytes, ranks=net.size, domains=net.domains,
        network_bytes_per_s=net.fabric_bytes_per_s or np.inf,
    )  # fmt: skip
    seconds = float(collectives.seconds(family, found.curve, samples, kernels.chip)[0])
    spread = float(uncertainty(family, found.curve, samples)[0])
    if net.domains > 1 and found.curve.rows < _ENOUGH_ROWS:
        spread = max(spread, DEVIATION_PER_MEDIAN * _BETWEEN_DOMAINS_ERROR)
    return Known(seconds, found.tag, spread, found.profile)


def _by_relative(
    kind: CollectiveKind, payload_bytes: float, net: Network, kernels: Kernels
) -> Known | None:
    """Return what the curve of another collective says of this one, or None without any.

    gather, scatter over domains: max(all_reduce(P) / 2, the same inside one domain)
    broadcast: all_gather(P f), f = the larger of m/(m-1) and N/(N-1): as many bytes per link
    send over domains: all_to_all(2 P) of two ranks: each keeps a half and sends one
    """
    found: Known | None = None
    if kind == "broadcast":
        shares = [n / (n - 1) for n in (net.members, net.domains) if n > 1]
        found = collective("all_gather", payload_bytes * max(shares), net, kernels)
    elif kind in ("all_gather", "reduce_scatter") and net.domains > 1:
        found = _half(kind, payload_bytes, net, kernels)
    elif kind == "send" and net.domains > 1:
        pair = replace(net, size=2, domains=2, members=1)
        found = collective("all_to_all", 2 * payload_bytes, pair, kernels)
    if found is None:
        return None
    spread = math.hypot(found.uncertainty, DEVIATION_PER_MEDIAN * _RELATIVES_ERROR[kind])
    return Known(found.seconds, "transferred", spread, found.origin)


def _half(
    kind: CollectiveKind, payload_bytes: float, net: Network, kernels: Kernels
) -> Known | None:
    both = collective("all_reduce", payload_bytes, net, kernels)
    domain = replace(net, size=net.members, domains=1, fabric_bytes_per_s=0.0)
    inside = collective(kind, payload_bytes, domain, kernels)
    if both is None or inside is None:
        return None
    return replace(both, seconds=max(both.seconds / 2, inside.seconds))


def _curve(kind: CollectiveKind, net: Network, kernels: Kernels) -> Found | None:
    name = _NAMES[kind]
    if net.domains > 1:
        return kernels.first("bf16", (f"{name}_across", net.fabric)) if net.fabric else None
    roles = [(name, ""), ("simple_collective", kind)]
    if kind == "all_reduce":
        roles.append(("custom_all_reduce", ""))
    return kernels.first("bf16", *roles)


def _wire(kind: CollectiveKind, payload_bytes: float, net: Network) -> dict[str, float]:
    """Return what a plain curve of a collective asks for: the bytes that leave a rank."""
    passes = 2.0 if kind == "all_reduce" else 1.0
    share = 1.0 if kind in ("send", "broadcast") else (net.size - 1) / net.size
    return calibrated.collective_columns(passes * share * payload_bytes, net.size)


def _columns(**values: float) -> dict[str, Array]:
    return {name: np.array([float(value)]) for name, value in values.items()}


def gathered(operator: Exchange, row_bytes: float, net: Network, kernels: Kernels) -> Known | None:
    """Return an exchange that gathers every token on every rank, and reduces on the way back.

    Source: Megatron-LM MoEAllGatherTokenDispatcher, token_dispatcher.py @d98e8a64.
    """
    kind: CollectiveKind = "all_gather" if is_dispatch(operator) else "reduce_scatter"
    return collective(kind, operator.tokens * net.size * row_bytes, net, kernels)


def is_dispatch(operator: Exchange) -> bool:
    """Tell what spreads tokens from what adds them up; backward the two change places."""
    return operator.name in ("dispatch", "combine_grad")


_LINK_BOUND = ("distinct", "high_throughput combine NVLinkOneSided")
"""What stands for HybridEP inside a scale-up domain, dispatch and combine alike.

Both write one copy per distinct rank straight over NVLink, with few multiprocessors: "in pure NVL
scenarios, 16 SMs can generally achieve good bandwidth" (megatron-core 0.16.1, moe_hybridep_num_sms,
its default), so that the link decides. No table measures HybridEP itself; this is TensorRT-LLM's on
2 to 32 GPUs of a GB200 NVL72. That dispatch goes as fast as combine is assumed.
"""


def forwarded(
    operator: Exchange, row_bytes: float, net: Network, kernels: Kernels, *, skew: float,
    link_bound: bool = False,
) -> Known | None:  # fmt: skip
    """Return an exchange by DeepEP's high-throughput kernels, or None without their curve.

    `link_bound`: by HybridEP's. Between domains the network cards bound both.
    """
    if net.domains > 1 and net.fabric not in _EXCHANGED_OVER:
        return None
    inside = link_bound and net.domains == 1
    found = kernels.first("bf16", _LINK_BOUND) if inside else _deepep_curve(operator, net, kernels)
    if found is None or net.kind != "switch" or net.on_torus:
        return None
    samples = _columns(
        tokens=operator.tokens * min(1.0, operator.copies / operator.top_k),
        hidden=operator.hidden, top_k=operator.top_k, experts=operator.num_experts,
        ranks=net.size, domains=net.domains, row_bytes=row_bytes, skew=skew,
        network_bytes_per_s=net.fabric_bytes_per_s or np.inf, **_reached(operator, net),
    )  # fmt: skip
    family = _FAMILIES[found.curve.family]
    seconds = float(exchange.seconds(family, found.curve, samples, kernels.chip)[0])
    spread = float(uncertainty(family, found.curve, samples)[0])
    if inside:
        spread = math.hypot(spread, ASSUMED_UNCERTAINTY)
    return Known(seconds, "transferred" if inside else found.tag, spread, found.profile)


def _deepep_curve(operator: Exchange, net: Network, kernels: Kernels) -> Found | None:
    phase = "dispatch" if is_dispatch(operator) else "combine"
    role = f"high_throughput {phase}" + (_EXCHANGED_OVER[net.fabric] if net.domains > 1 else "")
    dtypes = ("fp8_block128", "bf16") if phase == "dispatch" else ("bf16",)
    curves = (kernels.first(dtype, ("forwarded", role)) for dtype in dtypes)
    return next((one for one in curves if one is not None), None)


def _reached(operator: Exchange, net: Network) -> dict[str, float]:
    """Return how many ranks and domains a token reaches, group limits included."""
    where = Destinations(
        experts=operator.num_experts, top_k=operator.top_k, ranks=net.size, domains=net.domains,
        groups=operator.groups, groups_per_token=operator.groups_per_token,
        group_best=operator.group_best,
    )  # fmt: skip
    reach = typical_reach(where)
    return {"distinct_ranks": reach.ranks, "distinct_domains": reach.domains}
