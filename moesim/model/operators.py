"""What one device has to do, as records: shapes, FLOP, bytes read and written, how often.

An operator knows no machine. `module` is the part of the layer it belongs to, `input_from` the
module whose output it keeps for the backward pass; recomputation works on these two names.
"""

from dataclasses import dataclass
from typing import Literal

DTYPE_BYTES = {"fp32": 4.0, "tf32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0}
"""Bytes of one element."""

CollectiveKind = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """[m, k] times the weights [k, n]."""

    name: str
    module: str
    input_from: str
    m: int
    n: int
    k: int
    dtype: str
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedGemm:
    """One [rows[e], k] times [k, n] for each local expert e; experts without rows cost nothing."""

    name: str
    module: str
    input_from: str
    rows: tuple[int, ...]
    n: int
    k: int
    dtype: str
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCore:
    """Scores, softmax and weighted sum, as one fused kernel.

    `pairs` counts the (query, key) pairs that the mask lets through, for one head. `matmuls` is
    the number of matrix products per pair: 2 forward, 5 backward (FlashAttention-2, arXiv
    2307.08691, section 3.1: backward recomputes the scores).
    """

    name: str
    module: str
    input_from: str
    queries: int
    keys: int
    pairs: float
    heads: int
    kv_heads: int
    qk_dim: int
    v_dim: int
    dtype: str
    matmuls: int = 2
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearAttentionCore:
    """A recurrent state of [key_dim, value_dim] per value head, updated and read for each token.

    `products` counts the state-sized products per token: write and read, and for the gated delta
    rule the correction between them (Gated DeltaNet, arXiv 2412.06464, equation 10).
    """

    name: str
    module: str
    input_from: str
    tokens: int
    heads: int
    key_dim: int
    value_dim: int
    dtype: str
    products: int = 3
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointwise:
    """Anything bound by memory: norms, activations, residual adds, permutations, casts."""

    name: str
    module: str
    input_from: str
    elements_read: float
    elements_written: float
    elements_saved: float
    dtype: str
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """A transfer among the ranks of a parallel group.

    `payload_bytes`: all_reduce and reduce_scatter: what each rank puts in; all_gather: what each
    rank holds afterwards; all_to_all: what each rank puts in; send: what is sent.
    """

    name: str
    module: str
    kind: CollectiveKind
    group: str
    payload_bytes: float
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Dispatch of tokens to the ranks of their experts, or the way back (combine).

    `tokens` is per rank, before top-k; how many bytes that is depends on the dispatcher.
    """

    name: str
    module: str
    tokens: int
    hidden: int
    top_k: int
    num_experts: int
    copies: float
    """Rows sent per token by a dispatcher that sends one per choice: top_k, fewer where tokens are
    dropped, more where buffers are padded."""
    dtype: str
    groups: int = 1
    groups_per_token: int = 1
    count: int = 1


Compute = Gemm | GroupedGemm | AttentionCore | LinearAttentionCore | Pointwise
Operator = Compute | Collective | Exchange


def flop(operator: Operator) -> float:
    """Return the matrix FLOP of `operator`, a multiply-add being 2; all repetitions counted."""
    match operator:
        case Gemm():
            once = 2.0 * operator.m * operator.n * operator.k
        case GroupedGemm():
            once = 2.0 * sum(operator.rows) * operator.n * operator.k
        case AttentionCore():
            dims = (operator.qk_dim + operator.v_dim) / 2
            once = 2.0 * operator.matmuls * operator.pairs * operator.heads * dims
        case LinearAttentionCore():
            state = operator.key_dim * operator.value_dim
            once = 2.0 * operator.products * operator.tokens * operator.heads * state
        case _:
            once = 0.0
    return once * operator.count


def read_bytes(operator: Compute) -> float:
    """Return the bytes that `operator` reads from device memory at least; all repetitions."""
    size = DTYPE_BYTES[operator.dtype]
    match operator:
        case Gemm():
            elements = float(operator.m * operator.k + operator.k * operator.n)
        case GroupedGemm():
            active = sum(1 for rows in operator.rows if rows)
            elements = float(sum(operator.rows) * operator.k + active * operator.k * operator.n)
        case AttentionCore():
            query = operator.queries * operator.heads * operator.qk_dim
            key_value = operator.keys * operator.kv_heads * (operator.qk_dim + operator.v_dim)
            elements = (query + key_value) * operator.matmuls / 2
        case LinearAttentionCore():
            per_head = 2 * operator.key_dim + operator.value_dim
            elements = float(operator.tokens * operator.heads * per_head)
        case Pointwise():
            elements = operator.elements_read
    return elements * size * operator.count


def written_bytes(operator: Compute) -> float:
    """Return the bytes that `operator` writes to device memory; all repetitions."""
    size = DTYPE_BYTES[operator.dtype]
    match operator:
        case Gemm():
            elements, size = float(operator.m * operator.n), max(size, 2.0)
        case GroupedGemm():
            elements, size = float(sum(operator.rows) * operator.n), max(size, 2.0)
        case AttentionCore():
            elements = operator.queries * operator.heads * operator.v_dim * operator.matmuls / 2
        case LinearAttentionCore():
            elements = float(operator.tokens * operator.heads * operator.value_dim)
        case Pointwise():
            elements = operator.elements_written
    return elements * size * operator.count


def saved_bytes(operator: Compute) -> float:
    """Return the bytes of input that the backward pass of `operator` needs; all repetitions."""
    size = DTYPE_BYTES[operator.dtype]
    match operator:
        case Gemm():
            elements = float(operator.m * operator.k)
        case GroupedGemm():
            elements = float(sum(operator.rows) * operator.k)
        case AttentionCore():
            query = operator.queries * operator.heads * operator.qk_dim
            elements = float(
                query + operator.keys * operator.kv_heads * (operator.qk_dim + operator.v_dim)
            )
        case LinearAttentionCore():
            per_head = 2 * operator.key_dim + operator.value_dim
            elements = float(operator.tokens * operator.heads * per_head)
        case Pointwise():
            elements = operator.elements_saved
    return elements * size * operator.count
