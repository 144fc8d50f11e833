"""What a systolic matrix unit computes beside the exact product: it is filled whole or not at all.

A unit of u x u cells holds a block of one factor and streams the rows of the other past it. The
inner dimension k and one of the outer ones fill its cells, in whole multiples of u; the other outer
dimension streams, no faster than the next block is loaded, which takes u steps:

volume = up(k) * min(up(n) * max(m, u), up(m) * max(n, u)),  up(x) = ceil(x / u) * u

Source: jax-ml/scaling-book tpus.md @0819a7d for the sizes, 128 x 128 and on TPU v6e 256 x 256; that
loading one block hides behind streaming past the other is assumed.
"""

import math
from functools import lru_cache

from moesim.model.operators import AttentionCore, Compute, Gemm, GroupedGemm


def whole(length: int, unit: int) -> int:
    """Return `length` rounded up to whole multiples of `unit`."""
    return math.ceil(length / unit) * unit


def volume(m: int, n: int, k: int, unit: int) -> int:
    """Return the multiply-adds that the cells step through for [m, k] times [k, n]."""
    outer = min(whole(n, unit) * max(m, unit), whole(m, unit) * max(n, unit))
    return whole(k, unit) * outer


def unit_padding(operator: Compute, unit: int) -> float:
    """Return the steps of the cells over the multiply-adds of `operator`, at least 1."""
    match operator:
        case Gemm():
            exact = operator.m * operator.n * operator.k
            return volume(operator.m, operator.n, operator.k, unit) / exact if exact else 1.0
        case GroupedGemm():
            return _grouped(operator.rows, operator.n, operator.k, unit, operator.accumulates)
        case AttentionCore():
            products = (operator.qk_products, operator.v_products)
            wide = (whole(operator.qk_dim, unit), whole(operator.v_dim, unit))
            exact = products[0] * operator.qk_dim + products[1] * operator.v_dim
            return (products[0] * wide[0] + products[1] * wide[1]) / exact
        case _:
            return 1.0


def products_padding(padding: float, share: float, products: float) -> float:
    """Return what `padding` of its products makes of fused attention as a whole.

    Fused attention reaches a `share` of the peak, plain products a larger one; the rest of its time
    is the softmax, on other units, which no padding makes longer (assumed):

    1 + (padding - 1) * min(1, share / products)
    """
    return 1.0 + (padding - 1.0) * min(1.0, share / products)


@lru_cache(maxsize=1024)
def _grouped(rows: tuple[int, ...], n: int, k: int, unit: int, accumulates: bool) -> float:
    exact = sum(rows) * n * k
    sizes = ((k, n, one) if accumulates else (one, n, k) for one in rows if one)
    return sum(volume(*size, unit) for size in sizes) / exact if exact else 1.0
