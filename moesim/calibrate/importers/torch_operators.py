"""From the recorded shapes of a torch operator to a row: matrix products and attention.

Shapes stand in `Input Dims`, number types in `Input type`, other arguments in `Concrete Inputs`
(torch.profiler with record_shapes=True), in the order of the operator's schema (torch
aten/src/ATen/native/native_functions.yaml). Only what the tables mean gives a row: a product of two
matrices with one number type (of batched products those with one matrix), causal self-attention
with as many keys as queries, or attention of one query per sequence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from moesim.calibrate.importers.rows import Row
from moesim.calibrate.importers.values import counts

DTYPES = {
    "c10::BFloat16": "bf16", "c10::Half": "fp16", "float": "fp32",
    "c10::Float8_e4m3fn": "fp8", "c10::Float8_e5m2": "fp8",
}  # fmt: skip
"""Types in `Input type`, by the tables' word."""


@dataclass(frozen=True, slots=True)
class _Product:
    """Where an operator that multiplies has its matrices; `weight` is [k, n] unless turned."""

    left: int
    right: int
    turned: bool = False


_PRODUCTS = {
    "aten::mm": _Product(0, 1),
    "aten::addmm": _Product(1, 2),
    "aten::_addmm_activation": _Product(1, 2),
    "aten::bmm": _Product(0, 1),
    "aten::baddbmm": _Product(1, 2),
    "aten::linear": _Product(0, 1, turned=True),
    "aten::_scaled_mm": _Product(0, 1),
}


@dataclass(frozen=True, slots=True)
class _Attention:
    """How an attention operator orders [batch, sequence, heads, head_dim] and its arguments."""

    kernel: str
    heads_first: bool
    causal: int
    """Place of is_causal."""
    masks: tuple[int, ...] = ()
    """Places of a mask, or of the bounds of sequences of different lengths: none may be given."""
    windows: tuple[int, ...] = ()


_ATTENTIONS = {
    "aten::scaled_dot_product_attention": _Attention("sdpa", True, 5, (3,)),
    "aten::_scaled_dot_product_flash_attention": _Attention("flash_attention", True, 4),
    "aten::_flash_attention_forward": _Attention("flash_attention", False, 8, (3, 4)),
    "aten::_scaled_dot_product_cudnn_attention": _Attention("cudnn_attention", True, 6, (3,)),
    "aten::_cudnn_attention_forward": _Attention("cudnn_attention", True, 10, (3, 4, 5)),
    "flash_attn::_flash_attn_forward": _Attention("flash_attention", False, 5, windows=(6, 7)),
}

OPERATORS = (*_PRODUCTS, *_ATTENTIONS)
"""Operators whose shapes give rows."""


@dataclass(frozen=True, slots=True)
class Shaped:
    """A row but for its time, and the table it belongs to; without a table, why there is none."""

    table: str
    row: Row
    reason: str = ""


def _no(reason: str) -> Shaped:
    return Shaped("", {}, reason)


def shaped(operator: str, args: Mapping[str, Any], tensor_cores: str = "") -> Shaped:
    """Return the row of an operator out of OPERATORS; `tensor_cores` are words of its kernels."""
    dims, types = args.get("Input Dims"), args.get("Input type")
    if not isinstance(dims, list) or not isinstance(types, list):
        return _no("no shapes: profile with record_shapes=True")
    if operator in _PRODUCTS:
        return _product(operator, dims, types, tensor_cores)
    concrete = args.get("Concrete Inputs")
    known = [str(value) for value in concrete] if isinstance(concrete, list) else []
    return _attention(_ATTENTIONS[operator], dims, types, known)


def _product(operator: str, dims: list[Any], types: list[Any], tensor_cores: str) -> Shaped:
    at = _PRODUCTS[operator]
    left, right = (counts(_at(dims, place)) for place in (at.left, at.right))
    if not left or not right or len(left) < 2 or len(right) not in (2, 3):
        return _no("a product whose shapes are not those of matrices")
    if len(right) == 3 and right[0] > 1:
        return _no("a batched product: no table for it")
    k, n = reversed(right[-2:]) if at.turned else right[-2:]
    if left[-1] != k:
        return _no("a product whose shapes do not match")
    dtype = _common_dtype(types, at.left, at.right)
    if dtype == "fp32" and "tf32" in tensor_cores:
        dtype = "tf32"
    if dtype == "fp8":
        scales = [_at(dims, 2), _at(dims, 3)]
        dtype = "fp8_tensor_static" if all(scale in ([], [1]) for scale in scales) else ""
    if not dtype:
        return _no("a product of number types that the tables have no word for")
    row: Row = {"dtype": dtype, "kernel": operator, "m": prod(left[:-1]), "n": n, "k": k,
                "weights_l2_resident": False}  # fmt: skip
    return Shaped("gemm", row)


def _attention(at: _Attention, dims: list[Any], types: list[Any], concrete: list[str]) -> Shaped:
    query, key, value = (counts(_at(dims, place)) for place in range(3))
    if not query or not key or not value or {len(query), len(key), len(value)} != {4}:
        return _no("attention over sequences of different lengths, or without shapes")
    if any(_at(dims, place) for place in at.masks):
        return _no("attention with a mask")
    if any(_at(concrete, place) not in (None, "", "-1") for place in at.windows):
        return _no("attention with a sliding window")
    dtype = _common_dtype(types, 0, 1)
    if dtype not in ("bf16", "fp16"):
        return _no("attention in a number type that the tables have no word for")
    first, second = (1, 2) if at.heads_first else (2, 1)
    heads, kv_heads, queries, keys = query[first], key[first], query[second], key[second]
    if heads % kv_heads or value[3] != query[3] or (query[0], query[3]) != (key[0], key[3]):
        return _no("attention whose shapes do not match")
    row: Row = {
        "dtype": dtype, "kv_cache_dtype": dtype, "kernel": at.kernel, "num_heads": heads,
        "num_kv_heads": kv_heads, "head_dim": query[3], "sliding_window": 0,
        "batch_size": query[0],
    }  # fmt: skip
    return _phase(row, queries, keys, _at(concrete, at.causal))


def _phase(row: Row, queries: int, keys: int, causal: Any) -> Shaped:
    """Tell prefill from decode.

    With fewer queries than keys torch aligns a causal mask at the first key, some kernels at the
    last: what was computed is not known.
    """
    if causal not in ("True", "False"):
        return _no("attention that does not say is_causal")
    if queries == 1 and keys > 1 and causal == "False":
        return Shaped("attention_decode", {**row, "kv_tokens": keys, "kv_l2_resident": False})
    if queries != keys:
        return _no("attention of several queries with more or fewer keys")
    if causal == "False":
        return _no("attention that is not causal")
    return Shaped("attention_prefill", {**row, "seq_len": queries, "past_kv_tokens": 0})


def _at(values: list[Any], place: int) -> Any:
    return values[place] if place < len(values) else None


def _common_dtype(types: list[Any], left: int, right: int) -> str:
    """Return the tables' word for the type of both operands, or nothing."""
    both = {str(_at(types, place)) for place in (left, right)}
    return DTYPES.get(both.pop(), "") if len(both) == 1 else ""
