"""What one device has to do, as records: shapes, FLOP, bytes read and written, how often.

An operator knows no machine. `module` is the part of the layer it belongs to, `input_from` the
module whose output it keeps for the backward pass; recomputation works on these two names.
"""

from dataclasses import dataclass
from typing import Literal

from moesim.model.one_hot import MaskProduct, elements_read, elements_written
from moesim.model.sampling import Sampling, sampling_phases

DTYPE_BYTES = {"fp32": 4.0, "tf32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0}
"""Bytes of one element."""

CollectiveKind = Literal[
    "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """[m, k] times the weights [k, n].

    `input_share` is the part of the input this rank keeps for the backward pass: 1/tp where the
    input was gathered and will be again, 0 where another operator keeps it already.
    `accumulates`: the product is a weight gradient, added to an fp32 buffer in place.
    """

    name: str
    module: str
    input_from: str
    m: int
    n: int
    k: int
    dtype: str
    input_share: float = 1.0
    accumulates: bool = False
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedGemm:
    """One [rows[e], k] times [k, n] for each local expert e; experts without rows cost nothing.

    `accumulates`: it is the weight gradient [k, rows[e]] times [rows[e], n] instead, added to an
    fp32 buffer in place.
    """

    name: str
    module: str
    input_from: str
    rows: tuple[int, ...]
    n: int
    k: int
    dtype: str
    accumulates: bool = False
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCore:
    """Scores, softmax and weighted sum, as one fused kernel.

    `pairs` counts the (query, key) pairs that the mask lets through, for one head. Forward it has
    one product as wide as queries and keys, and one as wide as values. Backward it has three and
    two: the scores again, the gradients of queries and keys; those of values and of the
    probabilities (FlashAttention-2, arXiv 2307.08691, section 3.1). `own_keys` are those of this
    rank, which it keeps; `keys` are all it reads.
    """

    name: str
    module: str
    input_from: str
    sequences: int
    queries: int
    keys: int
    own_keys: int
    pairs: float
    heads: int
    kv_heads: int
    qk_dim: int
    v_dim: int
    dtype: str
    qk_products: int = 1
    v_products: int = 1
    fused: bool = True
    """Whether scores stay on the chip; else each step of it writes them to memory."""
    wide_scores: bool = False
    """Whether those scores are fp32 up to the softmax's output."""
    count: int = 1


CHUNK_TOKENS = 64
"""Tokens of a chunk of linear attention: assumed, as wide as the smallest tile of a product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearAttentionCore:
    """A recurrent state of [key_dim, value_dim] per value head, updated and read for each token.

    `products` counts the state-sized products per token: write and read, and for the gated delta
    rule the correction between them (Gated DeltaNet, arXiv 2412.06464, equation 10). They are the
    useful FLOP; what kernels compute instead, chunk by chunk, is in `linear_scan`. The backward
    pass has two products for each.
    """

    name: str
    module: str
    input_from: str
    sequences: int
    tokens: int
    heads: int
    key_dim: int
    value_dim: int
    dtype: str
    products: int = 3
    chunk: int = CHUNK_TOKENS
    backward: bool = False
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointwise:
    """Anything bound by memory: norms, activations, residual adds, permutations, casts.

    It works row by row; `rows` are mostly tokens. `gradient`: the elements that its backward kernel
    reads and writes, where they are not the mirror image; none of both is no kernel.
    `elements_left` are what it leaves for the backward pass itself, beside its input; `launches`
    are the kernels it is, forward and backward (see fusions.py).
    """

    name: str
    module: str
    input_from: str
    rows: float
    elements_read: float
    elements_written: float
    elements_saved: float
    dtype: str
    gradient: tuple[float, float] | None = None
    elements_left: float = 0.0
    launches: tuple[int, int] = (1, 1)
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """A transfer among the ranks of a parallel group.

    `payload_bytes`: all_reduce and reduce_scatter: what each rank puts in; all_gather: what each
    rank holds afterwards; all_to_all: what each rank puts in; broadcast, send: what is sent.
    `forward_only`: the backward pass has nothing like it.
    """

    name: str
    module: str
    kind: CollectiveKind
    group: str
    payload_bytes: float
    forward_only: bool = False
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
    backward_dtype: str
    """Type in which the gradients travel the other way."""
    groups: int = 1
    groups_per_token: int = 1
    group_best: int = 2
    count: int = 1


Compute = (
    Gemm | GroupedGemm | AttentionCore | LinearAttentionCore | Pointwise | Sampling | MaskProduct
)
Operator = Compute | Collective | Exchange


def flop(operator: Operator) -> float:
    """Return the matrix FLOP of `operator`, a multiply-add being 2; all repetitions counted."""
    match operator:
        case Gemm():
            once = 2.0 * operator.m * operator.n * operator.k
        case GroupedGemm():
            once = 2.0 * sum(operator.rows) * operator.n * operator.k
        case AttentionCore():
            wide = operator.qk_products * operator.qk_dim + operator.v_products * operator.v_dim
            once = 2.0 * operator.pairs * operator.heads * wide
        case LinearAttentionCore():
            state = operator.key_dim * operator.value_dim
            once = 2.0 * operator.products * operator.tokens * operator.heads * state
            once *= 2 if operator.backward else 1
        case MaskProduct():
            once = 2.0 * operator.multiply_adds
        case _:
            once = 0.0
    return once * operator.count


_ACCUMULATED = 4.0
"""Bytes of an element of the fp32 buffer that weight gradients are added to."""


def read_bytes(operator: Compute) -> float:
    """Return the bytes that `operator` reads from device memory at least; all repetitions."""
    size = DTYPE_BYTES[operator.dtype]
    match operator:
        case Gemm():
            read = (operator.m * operator.k + operator.k * operator.n) * size
            if operator.accumulates:
                read += operator.m * operator.n * _ACCUMULATED
        case GroupedGemm():
            read = _grouped_read(operator, size)
        case AttentionCore():
            read = _inputs_kept(operator, operator.keys) * size
            if operator.qk_products > 1:  # backward: the output and its gradient too
                read += 2 * operator.queries * operator.heads * operator.v_dim * size
        case LinearAttentionCore():
            per_head = 2 * operator.key_dim + operator.value_dim
            read = operator.tokens * operator.heads * per_head * size
        case Pointwise():
            read = operator.elements_read * size
        case Sampling():
            read = sum(one.read_bytes for one in sampling_phases(operator, size))
        case MaskProduct():
            read = elements_read(operator) * size
    return read * operator.count


def _grouped_read(operator: GroupedGemm, size: float) -> float:
    rows, weights = sum(operator.rows), _active(operator) * operator.k * operator.n
    if operator.accumulates:
        return rows * (operator.k + operator.n) * size + weights * _ACCUMULATED
    return (rows * operator.k + weights) * size


def _active(operator: GroupedGemm) -> int:
    """Return how many experts have rows: only their weights are touched."""
    return sum(1 for rows in operator.rows if rows)


def written_bytes(operator: Compute) -> float:
    """Return the bytes that `operator` writes to device memory; all repetitions."""
    size = DTYPE_BYTES[operator.dtype]
    match operator:
        case Gemm():
            out = _ACCUMULATED if operator.accumulates else max(size, 2.0)
            written = operator.m * operator.n * out
        case GroupedGemm():
            written = sum(operator.rows) * operator.n * max(size, 2.0)
            if operator.accumulates:
                written = _active(operator) * operator.k * operator.n * _ACCUMULATED
        case AttentionCore():
            written = operator.queries * operator.heads * operator.v_dim * size
            if operator.qk_products > 1:  # backward: gradients of queries, keys and values
                written = _inputs_kept(operator, operator.keys) * size
        case LinearAttentionCore():
            written = operator.tokens * operator.heads * operator.value_dim * size
        case Pointwise():
            written = operator.elements_written * size
        case Sampling():
            written = sum(one.written_bytes for one in sampling_phases(operator, size))
        case MaskProduct():
            written = elements_written(operator) * size
    return written * operator.count


def saved_bytes(operator: Compute) -> float:
    """Return the bytes of input that the backward pass of `operator` needs; all repetitions."""
    size = DTYPE_BYTES[operator.dtype]
    match operator:
        case Gemm():
            saved = operator.m * operator.k * size * operator.input_share
        case GroupedGemm():
            saved = sum(operator.rows) * operator.k * size
        case AttentionCore():
            saved = _inputs_kept(operator, operator.own_keys) * size
        case LinearAttentionCore():
            per_head = 2 * operator.key_dim + operator.value_dim
            saved = operator.tokens * operator.heads * per_head * size
        case Pointwise():
            saved = operator.elements_saved * size
        case Sampling():
            saved = 0.0
        case MaskProduct():  # what experts put out; the router keeps the tokens already
            saved = operator.slot_elements * size if operator.step == "put" else 0.0
    return saved * operator.count


def _inputs_kept(operator: AttentionCore, keys: int) -> float:
    query = operator.queries * operator.heads * operator.qk_dim
    return float(query + keys * operator.kv_heads * (operator.qk_dim + operator.v_dim))


_KEPT_PER_PAIR, _KEPT_WIDE = 5.0, 10.0


def all_pairs(operator: AttentionCore) -> float:
    """Return the (query, key) pairs of all heads, those that the mask forbids included."""
    return float(operator.queries) * operator.keys / operator.sequences * operator.heads


def state_bytes(operator: Compute) -> float:
    """Return what `operator` itself leaves for its backward pass.

    Fused attention leaves one fp32 log-sum-exp per query and head. Attention that is not fused
    leaves the softmax's output, the mask of its dropout and what that lets through, 5 bytes for
    every pair, masked ones included (Korthikanti et al. 2022, arXiv 2205.05198, section 4.1). With
    fp32 scores these and their exponentials in fp32 and what the dropout lets through: 10 bytes.
    One-hot masks stay, both of them.
    """
    if isinstance(operator, MaskProduct) and operator.step == "build":
        return elements_written(operator) * DTYPE_BYTES[operator.dtype] * operator.count
    if isinstance(operator, AttentionCore) and operator.v_dim:
        if not operator.fused:
            kept = _KEPT_WIDE if operator.wide_scores else _KEPT_PER_PAIR
            return kept * all_pairs(operator) * operator.count
        return operator.queries * operator.heads * 4.0 * operator.count
    if isinstance(operator, Pointwise):
        return operator.elements_left * DTYPE_BYTES[operator.dtype] * operator.count
    return 0.0
