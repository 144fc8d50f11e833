"""Operators of every size for the laws of curves: far beyond what was measured, and how they grow.

Numbers in [0, 1] place an operator: sizes follow log-uniformly, counts are whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from moesim.calibrate.table_fit import chips_of
from moesim.cost.curves import Array, Chip, Curve, Family
from moesim.cost.families import moe_loads
from moesim.cost.families.table import FAMILIES
from moesim.cost.kernel_profiles import kernel_profile_names, load_kernels

Columns = dict[str, Array]
Maker = Callable[[Array], Columns]
"""From numbers in [0, 1], one row per operator, to operators."""

NUMBERS = 8
"""Numbers that place an operator."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """A curve of a shipped profile and the chip it belongs to."""

    profile: str
    family: Family
    curve: Curve
    chip: Chip

    def __repr__(self) -> str:
        """Name the curve; its table would fill pages."""
        return f"{self.profile} {self.curve.family} {self.curve.dtype} {self.curve.variant!r}"


@cache
def shipped_curves() -> tuple[Shipped, ...]:
    """Return every curve of every shipped profile."""
    return tuple(_read())


def _read() -> Iterator[Shipped]:
    for name in kernel_profile_names():
        profile = load_kernels(name)
        chip = chips_of([profile.accelerator])[profile.accelerator]
        for curve in profile.curves:
            yield Shipped(name, FAMILIES[curve.family], curve, chip)


def _size(part: Array, most: float, least: float = 0.0) -> Array:
    """Return whole numbers from 2^least to 2^most."""
    return np.floor(np.exp2(least + (most - least) * part) + 1e-9)


def _one_of(part: Array, *choices: float) -> Array:
    place = np.minimum((part * len(choices)).astype(int), len(choices) - 1)
    found: Array = np.asarray(choices, dtype=np.float64)[place]
    return found


def _gemm(u: Array) -> Columns:
    return {"m": _size(u[:, 0], 20), "n": _size(u[:, 1], 17, 3), "k": _size(u[:, 2], 17, 3)}


def _prompts(u: Array) -> Columns:
    kv_heads = _one_of(u[:, 1], 1, 2, 4, 8, 16, 32, 64)
    return {
        "batch_size": _size(u[:, 0], 10), "num_kv_heads": kv_heads,
        "num_heads": kv_heads * _one_of(u[:, 2], 1, 2, 4, 8, 16),
        "seq_len": _size(u[:, 3], 17), "past_kv_tokens": _earlier(u[:, 4]),
        "head_dim": _one_of(u[:, 5], 32, 64, 96, 128, 192, 256, 512),
        "sliding_window": _one_of(u[:, 6], 0, 0, 0, 0, 128, 512, 1024, 4096),
    }  # fmt: skip


def _earlier(part: Array) -> Array:
    """Return none for half of the operators, else up to 2^17."""
    return np.where(part < 0.5, 0.0, _size(2 * part - 1, 17))


def _decodes(u: Array) -> Columns:
    prompts = _prompts(u)
    same = {name: prompts[name] for name in prompts if name not in ("seq_len", "past_kv_tokens")}
    return {**same, "batch_size": _size(u[:, 0], 13), "kv_tokens": _size(u[:, 3], 20)}


def _mla_prompts(u: Array) -> Columns:
    return {
        "batch_size": _size(u[:, 0], 10), "seq_len": _size(u[:, 1], 17),
        "past_kv_tokens": _earlier(u[:, 2]), "local_num_heads": _size(u[:, 3], 8),
    }  # fmt: skip


def _mla_decodes(u: Array) -> Columns:
    return {
        "batch_size": _size(u[:, 0], 13), "kv_tokens": _size(u[:, 1], 20),
        "local_num_heads": _size(u[:, 2], 8),
    }  # fmt: skip


def _bmm(u: Array) -> Columns:
    return {"num_tokens": _size(u[:, 0], 20), "local_num_heads": _size(u[:, 1], 8)}


def _rows(u: Array) -> Columns:
    return {"rows": _size(u[:, 0], 20), "cols": _size(u[:, 1], 17, 3)}


def _within(u: Array) -> Columns:
    return {"bytes": _size(u[:, 0], 40), "ranks": _size(u[:, 1], 12, 1)}


def _across(u: Array) -> Columns:
    domains = _size(u[:, 1], 9, 1)
    return {
        "bytes": _size(u[:, 0], 40), "domains": domains,
        "ranks": domains * _one_of(u[:, 2], 1, 2, 4, 8, 72),
        "network_bytes_per_s": _one_of(u[:, 3], 12.5e9, 50e9, 100e9),
    }  # fmt: skip


def _exchanges(u: Array, domains: tuple[float, ...] = (1, 1, 2, 4, 8, 32)) -> Columns:
    over = _one_of(u[:, 1], *domains)
    ranks = over * _one_of(u[:, 2], 2, 4, 8)
    return {
        "tokens": _size(u[:, 0], 20), "hidden": _size(u[:, 3], 15, 7),
        "top_k": _one_of(u[:, 4], 1, 2, 4, 6, 8), "experts": ranks * _one_of(u[:, 5], 4, 8, 16),
        "ranks": ranks, "domains": over, "domains_per_token": np.full_like(over, 99.0),
        "network_bytes_per_s": np.full_like(over, 50e9),
        "sms": _one_of(u[:, 6], 4, 8, 16, 20, 24, 32, 64),
    }  # fmt: skip


def _layers(u: Array) -> Columns:
    """Equal loads; uneven ones are tested as vectors of rows."""
    experts = _size(u[:, 1], 9)
    rows = _size(u[:, 0], 20)
    return {
        "hidden_size": _size(u[:, 2], 15, 7), "expert_ffn_size": _size(u[:, 3], 16, 5),
        "tp_size": np.ones_like(rows), "gated": _one_of(u[:, 4], 0, 1),
        "num_tokens": rows * experts, "num_experts": experts,
        **moe_loads.equal_loads(experts, rows),
    }  # fmt: skip


def _grouped(u: Array) -> Columns:
    experts, rows = _size(u[:, 1], 9), _size(u[:, 0], 20)
    loads = moe_loads.equal_loads(experts, rows)
    return {"n": _size(u[:, 2], 17, 5), "k": _size(u[:, 3], 17, 5), **loads}


MAKERS: dict[str, Maker] = {
    "gemm": _gemm, "attention_prefill": _prompts, "attention_decode": _decodes, "moe": _layers,
    "grouped_gemm": _grouped, "mla_bmm": _bmm, "forwarded": _exchanges, "direct": _exchanges,
    "distinct": partial(_exchanges, domains=(1,)), "prepare": partial(_exchanges, domains=(1,)),
}  # fmt: skip
"""Those of families that do not share theirs with others."""


def maker(family: str) -> Maker:
    """Return how operators of a family are placed."""
    if family in MAKERS:
        return MAKERS[family]
    if family.startswith("mla_"):
        return _mla_decodes if "decode" in family else _mla_prompts
    if family.endswith("_across"):
        return _across
    return _rows if FAMILIES[family].table == "elementwise" else _within


SIZES: dict[str, tuple[str, ...]] = {
    "gemm": ("m", "n", "k"),
    "moe": ("rows", "hidden_size", "expert_ffn_size"),
    "grouped_gemm": ("rows", "n", "k"),
    "attention_prefill": ("batch_size", "seq_len", "past_kv_tokens", "heads"),
    "attention_decode": ("batch_size", "kv_tokens", "sliding_window", "heads"),
    "mla_bmm": ("num_tokens", "local_num_heads"),
    "forwarded": ("tokens", "hidden", "ranks", "domains"),
    "direct": ("tokens", "hidden", "ranks", "domains"),
    "distinct": ("tokens", "hidden", "ranks"),
    "prepare": ("tokens", "hidden", "ranks"),
}
"""What can grow; those of families that do not share theirs with others."""


def sizes(family: str) -> tuple[str, ...]:
    """Return what can grow in operators of a family."""
    if family in SIZES:
        return SIZES[family]
    if family.startswith("mla_"):
        earlier = () if "decode" in family else ("past_kv_tokens",)
        tokens = "kv_tokens" if "decode" in family else "seq_len"
        return ("batch_size", tokens, *earlier, "local_num_heads")
    if family.endswith("_across"):
        return "bytes", "domains"
    return ("rows", "cols") if FAMILIES[family].table == "elementwise" else ("bytes", "ranks")


WITH_IT: dict[str, tuple[str, ...]] = {
    "heads": ("num_heads", "num_kv_heads"),
    "domains": ("domains", "ranks"),
}
"""Sizes that stand for several columns at once: heads of both kinds, whole domains of ranks."""

ONLY_DOUBLED = ("heads", "ranks", "domains")


def grown(columns: Columns, size: str, by: Array) -> Columns:
    """Return the operators with one size so many times as large; by 1 it is one larger."""
    if size == "rows" and "routed" in columns:
        each = columns["routed"] / columns["active"]
        loads = moe_loads.equal_loads(columns["active"], _larger(each, by))
        tokens = {"num_tokens": loads["routed"]} if "num_tokens" in columns else {}
        return {**columns, **loads, **tokens}
    names = WITH_IT.get(size, (size,))
    return {**columns, **{name: _larger(columns[name], by) for name in names}}


def _larger(value: Array, by: Array) -> Array:
    return np.where(value > 0.0, np.where(by > 1.0, np.floor(value * by), value + 1.0), 0.0)
