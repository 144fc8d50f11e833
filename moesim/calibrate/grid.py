"""The shapes that every device gets, and random ones between them for a larger budget."""

import math
from collections.abc import Iterator, Mapping, Sequence

from moesim import rng
from moesim.calibrate.device import Target
from moesim.calibrate.suite import Case, case

Sizes = Mapping[str, float]


def grid(target: Target, *, in_one_call: bool) -> list[Case]:
    """Return the base cases; `in_one_call`: torch has a grouped product on this device."""
    large = target.kind == "cuda"
    main = target.dtypes[0]
    grouped = "grouped_mm" if in_one_call else "loop"
    found = [*_gemms(target, large=large)]
    found += _of("grouped_gemm", grouped, main, _grouped(large=large))
    if in_one_call:
        found += _of("grouped_gemm", "wgrad", main, _grouped(large=large)[:6])
    for variant in ("prefill", "prefill_grad"):
        found += _of("attention", variant, main, _prefill(large=large))
    found += _of("attention", "decode", main, _decode(large=large))
    for variant, sizes in _elementwise(large=large).items():
        found += _of("elementwise", variant, main, sizes)
        if variant in DIFFERENTIABLE:
            found += _of("elementwise", f"{variant}_grad", main, sizes)
    return found + list(_machine(target, large=large))


DIFFERENTIABLE = (
    "norm", "rope", "activation", "cross_entropy", "embedding", "gate", "permute", "unpermute",
)  # fmt: skip
"""Pieces whose backward pass is measured too."""


def _of(operator: str, variant: str, dtype: str, sizes: Sequence[Sizes]) -> list[Case]:
    return [case(operator, variant, dtype, **size) for size in sizes]


def _named(names: str, *rows: tuple[float, ...]) -> list[Sizes]:
    return [dict(zip(names.split(), row, strict=True)) for row in rows]


def _gemms(target: Target, *, large: bool) -> Iterator[Case]:
    shapes = _LARGE_GEMMS if large else _SMALL_GEMMS
    for dtype in target.dtypes:
        few = shapes if dtype == target.dtypes[0] else shapes[:6]
        yield from _of("gemm", "", dtype, _named("m n k", *few))


_SMALL_GEMMS = (
    (1024, 1024, 1024), (512, 2048, 512), (1, 2048, 1024), (64, 1024, 1024), (16, 512, 2048),
    (256, 512, 512), (256, 16, 512), (8, 1024, 512), (4, 512, 1024), (128, 2048, 1024),
    (512, 512, 128), (1024, 512, 256), (32, 256, 256), (1, 512, 512),
)  # fmt: skip
_LARGE_GEMMS = (
    (8192, 8192, 8192), (4096, 4096, 4096), (1, 8192, 4096), (64, 4096, 4096), (16, 2048, 8192),
    (512, 2048, 2048), (2048, 64, 2048), (8, 4096, 2048), (128, 8192, 4096), (1024, 4096, 1024),
    (2048, 2048, 512), (256, 1024, 1024), (32, 14336, 4096), (4096, 1024, 4096),
)  # fmt: skip


def _grouped(*, large: bool) -> list[Sizes]:
    small = (
        (4, 256, 512, 512), (8, 512, 1024, 512), (8, 64, 512, 512), (16, 512, 512, 256),
        (2, 1024, 512, 512), (8, 8, 1024, 512), (16, 1024, 256, 512), (4, 32, 1024, 512),
        (2, 2, 1536, 768), (1, 4, 768, 1024),
    )  # fmt: skip
    big = (
        (8, 4096, 2048, 2048), (16, 2048, 1408, 2048), (64, 4096, 1024, 2048),
        (8, 64, 4096, 2048), (32, 16384, 2048, 1024), (64, 256, 2048, 1024),
        (128, 8192, 768, 2048), (8, 512, 1024, 1024),
        (2, 2, 4096, 2048), (8, 8, 2048, 4096),
    )  # fmt: skip
    return _named("experts rows n k", *(big if large else small))


def _prefill(*, large: bool) -> list[Sizes]:
    small = ((1, 128, 8, 2, 64), (2, 256, 8, 4, 64), (1, 512, 8, 8, 64), (4, 64, 8, 2, 64),
             (1, 1024, 4, 4, 64), (8, 128, 4, 2, 32), (1, 32, 4, 2, 64),
             (2, 384, 4, 1, 64))  # fmt: skip
    big = ((1, 2048, 16, 4, 128), (4, 1024, 16, 16, 64), (1, 8192, 32, 8, 128),
           (8, 512, 16, 4, 64), (2, 4096, 16, 8, 128), (16, 256, 8, 8, 64), (1, 256, 16, 4, 128),
           (4, 1536, 8, 2, 128))  # fmt: skip
    return _named("sequences length heads kv_heads head_dim", *(big if large else small))


def _decode(*, large: bool) -> list[Sizes]:
    small = ((1, 128, 8, 2, 64), (8, 256, 8, 4, 64), (4, 1024, 8, 8, 64), (1, 2048, 8, 2, 64),
             (16, 64, 4, 2, 32), (2, 512, 8, 2, 64), (8, 128, 8, 8, 64))  # fmt: skip
    big = ((1, 1024, 16, 4, 128), (32, 2048, 16, 4, 128), (8, 8192, 32, 8, 128),
           (64, 512, 16, 16, 64), (1, 16384, 32, 8, 128), (4, 1024, 32, 8, 128),
           (16, 256, 16, 4, 64))  # fmt: skip
    return _named("sequences length heads kv_heads head_dim", *(big if large else small))


_SMALL_ROWS = ((1, 1024), (8, 1024), (64, 512), (256, 512), (512, 1024), (1024, 2048))
_LARGE_ROWS = ((1, 4096), (64, 2048), (512, 2048), (2048, 2048), (4096, 4096), (16384, 4096))
_SMALL_WIDE = ((16, 1024), (64, 2048), (128, 4096), (256, 8192), (1024, 8192))
_LARGE_WIDE = ((64, 8192), (512, 8192), (1024, 32000), (4096, 16384), (8192, 32000))
_SMALL_ROUTED = (
    (1, 512, 8, 2), (8, 512, 8, 2), (64, 512, 16, 1), (256, 512, 8, 2), (512, 1024, 4, 4),
    (2048, 512, 16, 1),
)  # fmt: skip
_LARGE_ROUTED = (
    (8, 2048, 64, 8), (64, 2048, 8, 2), (512, 1024, 64, 4), (4096, 2048, 32, 2),
    (8192, 1024, 128, 8), (16384, 4096, 8, 1),
)  # fmt: skip
"""Rows, width, experts, top-k."""


def _elementwise(*, large: bool) -> dict[str, list[Sizes]]:
    rows = _named("rows width", *(_LARGE_ROWS if large else _SMALL_ROWS))
    wide = _named("rows width", *(_LARGE_WIDE if large else _SMALL_WIDE))
    routed = _LARGE_ROUTED if large else _SMALL_ROUTED
    chosen = _named("rows width top_k", *((r, e, k) for r, _, e, k in routed))
    spread = _named("rows width top_k", *((r, w, k) for r, w, _, k in routed))
    heads = ((16, 4, 128), (32, 8, 64)) if large else ((8, 2, 64), (8, 8, 64))
    turned = zip(rows, heads * 3, strict=True)
    looked = zip(rows[1:], wide, strict=True)
    return {
        "norm": rows,
        "add": rows,
        "activation": rows,
        "cache": _named("rows width", *((size["rows"], 128) for size in rows[:4])),
        "rope": _named("rows heads kv_heads head_dim", *((r["rows"], *h) for r, h in turned)),
        "cross_entropy": wide,
        "embedding": _named(
            "rows width vocab", *((r["rows"], r["width"], w["width"]) for r, w in looked)
        ),
        "gate": chosen,
        "assign": chosen,
        "permute": spread,
        "unpermute": spread,
    }


def _machine(target: Target, *, large: bool) -> Iterator[Case]:
    """Yield copies, launches and optimizer steps."""
    main = target.dtypes[0]
    sizes = (2**16, 2**20, 2**22, 2**24, 2**28 if large else 2**27)
    for size in sizes:
        yield case("elementwise", "copy", main, bytes=size)
        if target.kind != "cpu":
            yield case("elementwise", "host_to_device", main, bytes=size)
    for count in (1, 4, 16, 64):
        yield case("launch", "eager", main, count=count)
        if target.kind == "cuda":
            yield case("launch", "graph", main, count=count)
    scale = 16 if large else 1
    for params, tensors in ((2**16, 8), (2**18, 32), (2**20, 4), (2**22, 32), (2**23, 8)):
        variants = ("adamw_fused", "adamw_foreach") if target.kind != "mps" else ("adamw_foreach",)
        for variant in variants:
            yield case("elementwise", variant, main, params=params * scale, tensors=tensors)


_MOST_FLOP = {"cpu": 6e9, "mps": 2e11, "cuda": 4e12}
"""A product that takes longer than some hundredths of a second teaches no more than it costs."""


def candidates(base: Sequence[Case], target: Target, each: int, seed: int) -> list[Case]:
    """Return up to `each` random cases per curve, between the smallest and largest of its sizes."""
    by_curve: dict[tuple[str, str, str], list[Case]] = {}
    for one in base:
        by_curve.setdefault(one.curve, []).append(one)
    found = []
    for curve, cases in by_curve.items():
        draw = rng.stream(seed, f"calibration shapes {curve}")
        for _ in range(each):
            pick = cases[int(draw.integers(len(cases)))]
            sizes = {
                name: value if name in _KEPT else _between(name, cases, float(draw.random()))
                for name, value in pick.shape
            }
            if "experts" in sizes:
                sizes["rows"] = max(sizes["rows"], sizes["experts"])
            drawn = case(pick.operator, pick.variant, pick.dtype, **sizes)
            if _flop(drawn) <= _MOST_FLOP[target.kind]:
                found.append(drawn)
    return list(dict.fromkeys(found))


_KEPT = ("heads", "kv_heads", "head_dim", "count", "top_k", "ranks", "skew")
"""Sizes that hang together are taken from a base case."""


def _between(name: str, cases: Sequence[Case], part: float) -> float:
    values = [dict(one.shape)[name] for one in cases]
    low, high = math.log(min(values)), math.log(max(values))
    value = math.exp(low + (high - low) * part)
    unit = 16 if value >= 64 and name not in ("tensors", "experts") else 1
    return float(max(1, round(value / unit) * unit))


def _flop(one: Case) -> float:
    size = dict(one.shape)
    if one.operator in ("gemm", "grouped_gemm"):
        return 2 * size.get("m", size.get("rows", 0.0)) * size["n"] * size["k"]
    if one.operator == "attention" and one.variant != "decode":
        pairs = size["sequences"] * size["heads"] * size["length"] ** 2
        return 10 * pairs * size["head_dim"]
    return 0.0
