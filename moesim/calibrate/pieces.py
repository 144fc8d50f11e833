"""The pieces that real models are made of, as torch runs them, eager and unfused.

The suite measures these functions one by one; the models of `--verify` are composed of them. Norm,
activation and rotation are several passes over memory each, wherever torch has no fused kernel.
"""

from typing import Any, NamedTuple

from moesim.calibrate.device import torch_module

EPSILON = 1e-6
"""Of RMSNorm."""


def add_norm(x: Any, residual: Any, weight: Any) -> tuple[Any, Any]:
    """Return RMSNorm(x + residual) and the sum, which goes on as the residual."""
    torch = torch_module()
    total = x + residual
    return torch.nn.functional.rms_norm(total, weight.shape, weight, EPSILON), total


class Heads(NamedTuple):
    """How a projection splits into heads."""

    heads: int
    kv_heads: int
    head_dim: int

    @property
    def width(self) -> int:
        """Columns of queries, keys and values together."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim


def rotary(length: int, head_dim: int, like: Any) -> tuple[Any, Any]:
    """Return cosines and sines [length, 1, head_dim] of rotary positions."""
    torch = torch_module()
    steps = torch.arange(0, head_dim, 2, device=like.device, dtype=torch.float32) / head_dim
    angles = torch.outer(torch.arange(length, device=like.device), 10000.0**-steps)
    both = torch.cat((angles, angles), -1)[:, None, :]
    return both.cos().to(like.dtype), both.sin().to(like.dtype)


def split_heads(qkv: Any, cos: Any, sin: Any, heads: Heads) -> tuple[Any, Any, Any]:
    """Return queries, keys (both rotated) and values [sequences, heads, length, head_dim]."""
    torch = torch_module()
    turned = (heads.heads + heads.kv_heads) * heads.head_dim
    qk, v = qkv.split((turned, heads.kv_heads * heads.head_dim), -1)
    qk = qk.unflatten(-1, (-1, heads.head_dim))
    first, second = qk.chunk(2, -1)
    qk = qk * cos + torch.cat((-second, first), -1) * sin
    q, k = qk.split((heads.heads, heads.kv_heads), -2)
    v = v.unflatten(-1, (-1, heads.head_dim))
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def attend(q: Any, k: Any, v: Any, *, causal: bool) -> Any:
    """Return attention through torch's scaled_dot_product_attention, grouped heads included."""
    torch = torch_module()
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
    )


def swiglu(up: Any) -> Any:
    """Return silu(a) * b for the two halves of the last dimension."""
    torch = torch_module()
    gate, value = up.chunk(2, -1)
    return torch.nn.functional.silu(gate) * value


def cross_entropy(logits: Any, targets: Any) -> Any:
    """Return the mean loss over tokens, in fp32."""
    torch = torch_module()
    return torch.nn.functional.cross_entropy(logits.float(), targets)


def embed(tokens: Any, table: Any) -> Any:
    """Return the rows of the table."""
    torch = torch_module()
    return torch.nn.functional.embedding(tokens, table)


def gate(logits: Any, top_k: int) -> tuple[Any, Any]:
    """Return weights and experts of each token: softmax, top-k, weights that sum to one."""
    torch = torch_module()
    weights, experts = torch.topk(torch.softmax(logits.float(), -1), top_k, -1)
    return (weights / weights.sum(-1, keepdim=True)).to(logits.dtype), experts


class Assigned(NamedTuple):
    """Where the tokens' choices go."""

    order: Any
    """Choices that are kept, sorted by expert."""
    tokens: Any
    """The token of each of them."""
    counts: Any
    """Rows of each expert."""


def assign(experts: Any, num_experts: int, slots: int | None = None) -> Assigned:
    """Return the choices sorted by expert; those beyond an expert's `slots` are dropped."""
    torch = torch_module()
    flat = experts.reshape(-1)
    order = torch.argsort(flat, stable=True)
    counts = torch.bincount(flat, minlength=num_experts)
    if slots is not None:
        start = torch.cumsum(counts, 0) - counts
        place = torch.arange(len(flat), device=flat.device) - start[flat[order]]
        order = order[place < slots]
        counts = counts.clamp(max=slots)
    return Assigned(order, torch.div(order, experts.shape[-1], rounding_mode="floor"), counts)


def permute(x: Any, tokens: Any) -> Any:
    """Return the rows of the tokens, one per choice."""
    return x.index_select(0, tokens)


def unpermute(rows: Any, weights: Any, assigned: Assigned, tokens: int) -> Any:
    """Return for each token the weighted sum of the rows that its experts gave back."""
    share = weights.reshape(-1).index_select(0, assigned.order)
    empty = rows.new_zeros((tokens, rows.shape[-1]))
    return empty.index_add(0, assigned.tokens, rows * share[:, None])


def has_grouped_mm(kind: str, dtype: str) -> bool:
    """Return whether torch multiplies groups in one call here, backward too."""
    torch = torch_module()
    function = torch.nn.functional
    if not hasattr(function, "grouped_mm"):
        return False
    options = {"device": kind, "dtype": getattr(torch, _TORCH_NAMES[dtype])}
    try:
        x = torch.ones(32, 16, requires_grad=True, **options)
        w = torch.ones(2, 16, 16, requires_grad=True, **options)
        ends = torch.tensor([16, 32], device=kind, dtype=torch.int32)
        out = function.grouped_mm(x, w, offs=ends)
        torch.autograd.grad(out, (x, w), torch.ones_like(out))
    except (RuntimeError, NotImplementedError):
        return False
    return True


_TORCH_NAMES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def grouped_mm(rows: Any, weights: Any, counts: Any, *, in_one_call: bool) -> Any:
    """Return each expert's rows times its weights [experts, k, n]: one call, or a loop."""
    torch = torch_module()
    if in_one_call:
        ends = torch.cumsum(counts, 0).to(torch.int32)
        return torch.nn.functional.grouped_mm(rows, weights, offs=ends)
    parts = rows.split(counts.tolist())
    return torch.cat([part @ weight for part, weight in zip(parts, weights, strict=True)])


def append_cache(cache: Any, new: Any, position: int) -> Any:
    """Write keys or values of new tokens into the cache and return the filled part of it."""
    end = position + new.shape[2]
    cache[:, :, position:end] = new
    return cache[:, :, :end]
