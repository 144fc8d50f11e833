"""Seconds of the dispatch and the combine of tokens between expert-parallel ranks.

Columns of the samples: `tokens` (per rank), `hidden`, `top_k`, `experts`, `ranks`; where they
apply `domains` (default 1), `network_bytes_per_s` (scale-out rate of one device),
`domains_per_token` (group-limited routing), `sms` (multiprocessors given to the kernel), `skew`
(rows of the fullest rank over the mean), `distinct_ranks` and `distinct_domains` (that a token
reaches, its own included; else their closed form). `link_bytes_per_s` overrules the rate of the
chip. The dtype of a curve is what travels: fp8_block128 has hidden (1 + 4/128) bytes a row, bf16
2 hidden.

Three ways to send, each a family; a variant is an implementation, a mode and a phase:

`forwarded` - DeepEP, UCCL-EP and MORI, high throughput: one copy per distinct domain over the
  network, then one per distinct rank inside it, moved by the SMs. With C ranks and A other domains
  a token:
  sm = tokens C (row + copy_bytes) / (sms sm_rate), link = tokens C (1 - N/n) row / (fraction r),
  nic = tokens A row (1 + loss log2 N) / (away_fraction R), t = floor (+) (sm (+) link (+) nic)
`direct` - low-latency kernels, pplx, torch: one copy per assignment, straight to its rank, by
  one thread block per expert or group of experts; few experts leave most SMs idle.
`distinct` - TensorRT-LLM over NVLink: one copy per distinct rank, inside one domain.

(+) is the p-norm. Sources: DeepEP README and docs/legacy.md @dd758ca (about 13 GB/s per SM up to
the link; "RDMA GB/s" counts the copy of the own domain), pplx-kernels and UCCL-EP READMEs.
"""

import numpy as np

from moesim.cost.curves import Array, Chip, Curve, Family, Parameters, Samples, predict_s
from moesim.cost.families.ramps import (
    column,
    fraction,
    link_rate,
    network_rate,
    rising_s,
    together,
)
from moesim.cost.surface import Axis, octaves
from moesim.moe.traffic import Destinations, limited_fan_out

ROW_BYTES_PER_VALUE = {
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "fp8_block128": 1.0 + 4.0 / 128.0,
    "nvfp4": 0.5 + 1.0 / 16.0,
}
"""Bytes per hidden value on the wire: 4-byte scales per 128, 1-byte scales per 16 in nvfp4."""

DEFAULT_SMS = 20.0
"""Multiprocessors of DeepEP where nothing is said (README @dd758ca: 20 of 132 while training)."""


def row_bytes(samples: Samples, dtype: str) -> Array:
    """Return the bytes of one token's row on the wire; a column `row_bytes` overrules the dtype."""
    if "row_bytes" in samples:
        return np.asarray(samples["row_bytes"], dtype=np.float64)
    return np.asarray(samples["hidden"] * ROW_BYTES_PER_VALUE[dtype])


def distinct_ranks(samples: Samples) -> Array:
    """Return the expected number of distinct ranks that a token reaches, its own included."""
    return _fan_out(samples, "ranks")


def distinct_domains(samples: Samples) -> Array:
    """Return the expected number of distinct domains that a token reaches, its own included."""
    return _fan_out(samples, "domains")


def _fan_out(samples: Samples, parts: str) -> Array:
    """Return the column distinct_<parts>, else the closed form of moe.traffic, once per kind."""
    if f"distinct_{parts}" in samples:
        return np.asarray(samples[f"distinct_{parts}"], dtype=np.float64)
    domains = column(samples, "domains", 1.0)
    limit = np.minimum(column(samples, "domains_per_token", np.inf), domains)
    of = domains if parts == "domains" else samples["ranks"]
    wanted = (of, samples["experts"], samples["top_k"], domains, limit)
    rows = np.stack([np.ravel(values) for values in wanted], axis=1)
    kinds, place = np.unique(rows, axis=0, return_inverse=True)
    found = np.asarray([_kind_fan_out(*(max(1, round(value)) for value in kind)) for kind in kinds])
    return np.asarray(found[np.ravel(place)].reshape(np.shape(of)))


def _kind_fan_out(parts: int, experts: int, top_k: int, groups: int, limit: int) -> float:
    limited = limit < groups and limit * (experts // groups) >= top_k
    where = Destinations(
        experts=experts,
        top_k=top_k,
        ranks=parts,
        domains=groups,
        groups=groups if limited else 1,
        groups_per_token=limit if limited else 1,
    )
    return min(limited_fan_out(where, parts), float(top_k), float(parts))


def forwarded_copies(samples: Samples) -> tuple[Array, Array, Array]:
    """Return the copies per token that SMs move, that cross a link, and that cross the network.

    C, C (1 - N/n) and D (1 - 1/N), with C distinct ranks and D distinct domains.
    """
    domains = column(samples, "domains", 1.0)
    ranks = distinct_ranks(samples)
    over_links = ranks * (1.0 - np.minimum(1.0, domains / samples["ranks"]))
    return ranks, over_links, distinct_domains(samples) * (1.0 - 1.0 / domains)


def direct_copies(samples: Samples) -> tuple[Array, Array]:
    """Return the copies per token over links and over the network: k (m-1)/n and k (1 - 1/N)."""
    domains = column(samples, "domains", 1.0)
    inside = (samples["ranks"] / domains - 1.0) / samples["ranks"]
    return samples["top_k"] * np.maximum(0.0, inside), samples["top_k"] * (1.0 - 1.0 / domains)


def bound_s(family: str, samples: Samples, chip: Chip, dtype: str) -> Array:
    """Return the seconds that no implementation of this way to send can beat."""
    if family == "prepare":
        return np.zeros_like(samples["tokens"])
    if family == "direct":
        near, away = direct_copies(samples)
    else:
        _, near, away = forwarded_copies(samples)
    near = near * _sent_bytes(samples, dtype) / link_rate(samples, chip)
    return np.maximum(near, away * _sent_bytes(samples, dtype) / network_rate(samples))


def _sent_bytes(samples: Samples, dtype: str) -> Array:
    return samples["tokens"] * row_bytes(samples, dtype) * column(samples, "skew", 1.0)


def forwarded_s(samples: Samples, chip: Chip, dtype: str, fitted: Parameters) -> Array:
    """Return the seconds of DeepEP or UCCL-EP in high-throughput mode."""
    ranks, near, away = forwarded_copies(samples)
    tokens = samples["tokens"] * column(samples, "skew", 1.0)
    row = row_bytes(samples, dtype)
    moved = tokens * (ranks * (row + fitted["copy_bytes"]) + fitted["token_bytes"])
    sm_s = moved / (column(samples, "sms", DEFAULT_SMS) * fitted["sm_bytes_per_s"])
    link_s = tokens * near * row / (fraction(fitted, "fraction") * link_rate(samples, chip))
    together_s = together(sm_s, link_s, fitted["pipelining"])
    together_s = together(together_s, _away_s(samples, dtype, away, fitted), fitted["pipelining"])
    away_floor = np.where(column(samples, "domains", 1.0) > 1.0, fitted["away_floor_s"], 0.0)
    return together(fitted["floor_s"] + away_floor, together_s, fitted["sharpness"])


def _away_s(samples: Samples, dtype: str, away: Array, fitted: Parameters) -> Array:
    spread = 1.0 + fitted["fan_out_loss"] * np.log2(column(samples, "domains", 1.0))
    rate = fraction(fitted, "away_fraction") * network_rate(samples)
    return np.asarray(away * _sent_bytes(samples, dtype) * spread / rate)


def direct_s(samples: Samples, chip: Chip, dtype: str, fitted: Parameters) -> Array:
    """Return the seconds where every assignment is a copy of its own."""
    near, away = direct_copies(samples)
    domains = column(samples, "domains", 1.0)
    sent = _sent_bytes(samples, dtype)
    near_s = sent * near / (fraction(fitted, "fraction") * link_rate(samples, chip))
    work_s = samples["top_k"] * (sent / fitted["copy_bytes_per_s"])
    turns = samples["tokens"] / _blocks(samples["experts"], chip.compute_units)
    work_s = together(work_s, turns * fitted["token_s"], fitted["pipelining"])
    together_s = together(near_s, _away_s(samples, dtype, away, fitted), fitted["pipelining"])
    floor = fitted["floor_s"] + np.where(domains > 1.0, fitted["away_floor_s"], 0.0)
    floor = floor + fitted["away_step_s"] * np.log2(domains)
    floor = floor + fitted["expert_s"] * samples["experts"]
    return together(floor, together(together_s, work_s, fitted["pipelining"]), fitted["sharpness"])


def _blocks(experts: Array, units: int) -> Array:
    """Return the thread blocks of a low-latency kernel: experts / ceil(experts / SMs), rounded up.

    Source: DeepEP csrc/kernels/internode_ll.cu, num_warp_groups and num_sms of dispatch.
    """
    return np.asarray(np.ceil(experts / np.ceil(experts / units)))


def distinct_s(samples: Samples, chip: Chip, dtype: str, fitted: Parameters) -> Array:
    """Return the seconds of one-sided or two-sided copies over NVLink inside one domain."""
    ranks = distinct_ranks(samples)
    near = ranks * (1.0 - 1.0 / samples["ranks"])
    sent = _sent_bytes(samples, dtype)
    link_s = sent * near / (fraction(fitted, "fraction") * link_rate(samples, chip))
    local_s = sent * fitted["local_rows"] / chip.memory_bandwidth_bytes_per_s
    tokens_s = samples["tokens"] * (fitted["token_s"] + fitted["copy_s"] * ranks)
    floor = fitted["floor_s"] + fitted["rank_s"] * samples["ranks"]
    return together(floor, link_s + local_s + tokens_s, fitted["sharpness"])


def prepare_s(samples: Samples, chip: Chip, dtype: str, fitted: Parameters) -> Array:
    """Return the seconds of counting and sharing the destinations before an exchange."""
    floor = fitted["floor_s"] + fitted["rank_s"] * samples["ranks"]
    work = samples["tokens"] * (fitted["token_s"] + fitted["all_token_s"] * samples["ranks"])
    return together(floor, work, fitted["sharpness"])


def seconds(family: Family, curve: Curve, samples: Samples, chip: Chip) -> Array:
    """Return the fitted seconds, never falling with the tokens and never below the bound."""
    fitted = rising_s(lambda asked: predict_s(family, curve, asked, chip), samples, "tokens")
    return np.maximum(fitted, bound_s(family.name, samples, chip, curve.dtype))


def _start_forwarded(chip: Chip, dtype: str) -> dict[str, float]:
    return {
        "floor_s": 3e-5,
        "away_floor_s": 3e-5,
        "sm_bytes_per_s": 1.4e10,
        "copy_bytes": 1000.0,
        "token_bytes": 1000.0,
        "fraction": 0.7,
        "away_fraction": 0.9,
        "fan_out_loss": 0.05,
        "pipelining": 3.0,
        "sharpness": 1.2,
    }


def _start_direct(chip: Chip, dtype: str) -> dict[str, float]:
    return {
        "floor_s": 1.3e-5,
        "away_floor_s": 1e-5,
        "away_step_s": 2e-6,
        "copy_bytes_per_s": 5e11,
        "token_s": 2e-6,
        "expert_s": 1.5e-8,
        "fraction": 0.7,
        "away_fraction": 0.9,
        "fan_out_loss": 0.05,
        "pipelining": 2.0,
        "sharpness": 1.5,
    }


def _start_distinct(chip: Chip, dtype: str) -> dict[str, float]:
    return {
        "floor_s": 8e-6,
        "rank_s": 2e-7,
        "token_s": 1e-9,
        "copy_s": 1e-10,
        "local_rows": 2.0,
        "fraction": 0.7,
        "sharpness": 1.2,
    }


def _start_prepare(chip: Chip, dtype: str) -> dict[str, float]:
    return {
        "floor_s": 1e-5,
        "rank_s": 2e-7,
        "token_s": 1e-9,
        "all_token_s": 1e-11,
        "sharpness": 1.2,
    }


def _forwarded_place(samples: Samples) -> tuple[Array, ...]:
    tokens, hidden = np.log2(samples["tokens"]), np.log2(samples["hidden"])
    sms = np.log2(column(samples, "sms", DEFAULT_SMS))
    domains = np.log2(column(samples, "domains", 1.0))
    return tokens, sms, hidden, np.log2(distinct_ranks(samples)), domains


def _direct_place(samples: Samples) -> tuple[Array, ...]:
    tokens, hidden = np.log2(samples["tokens"]), np.log2(samples["hidden"])
    domains = np.log2(column(samples, "domains", 1.0))
    return tokens, hidden, np.log2(samples["top_k"]), domains


def _distinct_place(samples: Samples) -> tuple[Array, ...]:
    return np.log2(samples["tokens"]), np.log2(samples["ranks"])


def _distinct_samples_at(places: tuple[Array, ...]) -> Samples:
    tokens, ranks = np.exp2(places[0]), np.round(np.exp2(places[1]))
    usual = {"hidden": 7168.0, "top_k": 8.0, "experts": 256.0}
    same = {name: np.full_like(tokens, value) for name, value in usual.items()}
    return {"tokens": tokens, "ranks": ranks, **same}


_TOKENS = octaves("log2_tokens", 0.0, 18.0, 2.0)
_HIDDEN = octaves("log2_hidden", 10.0, 14.0, 1.0)
_DOMAINS = octaves("log2_domains", 0.0, 5.0, 1.0)
_RANKS = octaves("log2_ranks", 1.0, 7.0, 1.0)

# More tokens are never faster. Other sizes may be: more ranks spread the same rows over more of
# them, and between the measured widths and fan-outs the kernels' warps are shared out otherwise.

FORWARDED = Family(
    name="forwarded",
    table="moe_alltoall",
    physics=forwarded_s,
    start=_start_forwarded,
    coordinates=_forwarded_place,
    axes=(
        _TOKENS,
        Axis("log2_sms", (2.0, 3.0, 4.0, 5.0)),
        _HIDDEN,
        Axis("log2_distinct_ranks", (0.0, 1.0, 2.0, 3.0)),
        _DOMAINS,
    ),
    quantum={"ranks": 0.3, "hidden": 0.12},
    quantum_beyond=0.3,
)
"""DeepEP and UCCL-EP, high throughput."""

DIRECT = Family(
    name="direct",
    table="moe_alltoall",
    physics=direct_s,
    start=_start_direct,
    coordinates=_direct_place,
    axes=(_TOKENS, _HIDDEN, Axis("log2_top_k", (0.0, 1.0, 2.0, 3.0, 4.0)), _DOMAINS),
    quantum={"hidden": 0.02},
    quantum_beyond=0.2,
)
"""Low-latency kernels, pplx, MORI, torch."""

DISTINCT = Family(
    name="distinct",
    table="moe_alltoall",
    physics=distinct_s,
    start=_start_distinct,
    coordinates=_distinct_place,
    axes=(_TOKENS, _RANKS),
    samples_at=_distinct_samples_at,
    rising=((0, 1),),
    let_be=0.02,
    quantum={"ranks": 0.15},
)
"""TensorRT-LLM over NVLink, one-sided or two-sided."""

PREPARE = Family(
    name="prepare",
    table="moe_alltoall",
    physics=prepare_s,
    start=_start_prepare,
    coordinates=_distinct_place,
    axes=(_TOKENS, _RANKS),
    samples_at=_distinct_samples_at,
    rising=((0, 1),),
    let_be=0.02,
    quantum={"ranks": 0.15},
)
"""Layout and counts before a two-sided exchange."""

FAMILIES: tuple[Family, ...] = (FORWARDED, DIRECT, DISTINCT, PREPARE)
"""Every family of this module."""
