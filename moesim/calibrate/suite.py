"""What is measured: one operator at one shape, and what the physics needs to know of it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moesim.cost.families.simple import DTYPE_BYTES


@dataclass(frozen=True, slots=True)
class Case:
    """One operator at one shape."""

    operator: str
    """gemm, grouped_gemm, attention, elementwise, launch, or collective."""
    variant: str
    """Which of its kind: norm, norm_grad, prefill, decode, all_reduce, ...; may be empty."""
    dtype: str
    shape: tuple[tuple[str, float], ...]
    """Names and sizes, in the order of the builder."""

    @property
    def sizes(self) -> dict[str, int]:
        """The shape as whole numbers by name."""
        return {name: int(value) for name, value in self.shape}

    @property
    def curve(self) -> tuple[str, str, str]:
        """The curve that it is a sample of."""
        return self.operator, self.dtype, self.variant

    @property
    def text(self) -> str:
        """The shape as one line."""
        return " ".join(f"{name}={value:g}" for name, value in self.shape)

    @property
    def key(self) -> str:
        """What tells it from all other cases."""
        return json.dumps([self.operator, self.variant, self.dtype, list(self.shape)])


def case(operator: str, variant: str, dtype: str, **sizes: float) -> Case:
    """Return a case."""
    return Case(operator, variant, dtype, tuple((name, float(v)) for name, v in sizes.items()))


def columns(one: Case) -> Mapping[str, float]:
    """Return what the physics of its family needs to know of a case."""
    size = {name: float(value) for name, value in one.shape}
    if one.operator == "attention":
        return _attention(size, one.variant)
    if one.operator == "launch":
        return {"items": size["count"], "bytes": 1.0}
    if one.operator == "collective":
        return _collective(size, one.variant)
    if one.operator != "elementwise":
        return size
    items, moved = _MOVED[one.variant.removesuffix("_grad")](size, DTYPE_BYTES[one.dtype])
    if one.variant == "embedding_grad":  # the gradient of the whole table is cleared first
        moved += size["vocab"] * size["width"] * DTYPE_BYTES[one.dtype]
    return {"items": items, "bytes": moved}


def _attention(size: dict[str, float], variant: str) -> dict[str, float]:
    keys = size["length"]
    decode = variant == "decode"
    rest = {name: size[name] for name in ("sequences", "heads", "kv_heads", "head_dim")}
    return {**rest, "queries": 1.0 if decode else keys, "keys": keys, "causal": 1.0 - decode}


def _collective(size: dict[str, float], variant: str) -> dict[str, float]:
    """The wire carries (n - 1) / n of the payload, twice that for an all-reduce."""
    ranks = size["ranks"]
    passes = 2.0 if variant == "all_reduce" else size["skew"]
    return {"ranks": ranks, "bytes": passes * (ranks - 1) / ranks * size["payload"]}


_Sizes = Mapping[str, float]


def _rows(passes: float) -> Callable[[_Sizes, float], tuple[float, float]]:
    return lambda s, size: (s["rows"], passes * s["rows"] * s["width"] * size)


def _spread(s: _Sizes, size: float) -> tuple[float, float]:
    return s["rows"], (1 + s["top_k"]) * s["rows"] * s["width"] * size


def _turned(s: _Sizes, size: float) -> tuple[float, float]:
    return s["rows"], 2 * s["rows"] * (s["heads"] + s["kv_heads"]) * s["head_dim"] * size


def _fp32_rows(s: _Sizes, size: float) -> tuple[float, float]:
    del size
    return s["rows"] * s.get("top_k", 1.0), 2 * s["rows"] * s["width"] * 4.0


_MOVED: Mapping[str, Callable[[_Sizes, float], tuple[float, float]]] = {
    "norm": _rows(4),
    "add": _rows(3),
    "rope": _turned,
    "activation": _rows(3),
    "cross_entropy": _fp32_rows,
    "embedding": _rows(2),
    "gate": _fp32_rows,
    "assign": lambda s, size: (s["rows"] * s["top_k"], 8 * s["rows"] * s["top_k"]),
    "permute": _spread,
    "unpermute": _spread,
    "cache": _rows(2),
    "copy": lambda s, size: (1.0, 2 * s["bytes"]),
    "host_to_device": lambda s, size: (1.0, s["bytes"]),
    "adamw_fused": lambda s, size: (s["tensors"], 7 * s["params"] * size),
    "adamw_foreach": lambda s, size: (s["tensors"], 7 * s["params"] * size),
}
"""Items and bytes of an elementwise operator, counted as moesim.model.operators counts them."""
