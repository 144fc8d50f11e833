"""Builds the call that a case measures: random operands, cold weights, warm activations.

What a model streams (weights, key-value caches, the inputs that weight gradients read again) is
taken from a store larger than the caches, in turn; other inputs stay where the operator before has
written them. Results are kept for some turns, so that each goes to other memory, as in a model.
Never zeros: some devices multiply those with less power, and so at a higher clock.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from moesim.calibrate import pieces
from moesim.calibrate.bench import Call
from moesim.calibrate.device import Target, torch_dtype, torch_module
from moesim.calibrate.suite import Case

Sizes = Mapping[str, int]


class Store:
    """Random numbers on the device, larger than its caches, cut into operands."""

    def __init__(self, target: Target, *, in_one_call: bool) -> None:
        self.target = target
        self.in_one_call = in_one_call
        self._arenas: dict[str, Any] = {}

    def warm(self, dtype: str, *shape: int) -> Any:
        """Return a fresh random tensor, scaled so that sums of products stay near one."""
        torch = torch_module()
        device = self.target.kind
        return 0.05 * torch.randn(shape, device=device).to(torch_dtype(dtype))

    def cold(self, dtype: str, *shape: int) -> list[Any]:
        """Return tensors to be used in turn, together larger than the caches."""
        arena = self._arena(dtype)
        size = 1
        for part in shape:
            size *= part
        if size > len(arena) // 2:
            return [self.warm(dtype, *shape) for _ in range(2)]
        count = min(512, len(arena) // size)
        return [arena[i * size : (i + 1) * size].view(shape) for i in range(count)]

    def _arena(self, dtype: str) -> Any:
        if dtype not in self._arenas:
            size = torch_dtype(dtype).itemsize
            wanted = min(max(4 * self.target.cache_bytes, 2**27), self.target.capacity_bytes / 8)
            self._arenas[dtype] = self.warm(dtype, int(wanted / size))
        return self._arenas[dtype]


class Work(NamedTuple):
    """A call, and how often it does what its case stands for."""

    call: Call
    times: int = 1


def build(case: Case, store: Store) -> Work:
    """Return the call that does the work of `case`."""
    piece = _prefill if case.operator == "attention" else _piece(case.variant)
    if case.variant.endswith("_grad"):
        return _backward(case, piece, store)
    return Work(_forward(case, piece, store))


def _piece(variant: str) -> "Piece | None":
    return _PIECES.get(variant.removesuffix("_grad"))


def _forward(case: Case, piece: "Piece | None", store: Store) -> Call:
    size, dtype = case.sizes, case.dtype
    if case.operator == "gemm":
        return _gemm(size, dtype, store)
    if case.operator == "grouped_gemm":
        return _grouped(size, dtype, store, weights=case.variant != "wgrad")
    if case.variant == "decode":
        return _decode(size, dtype, store)
    if piece is None:
        return _PLAIN[case.variant](size, dtype, store)
    inputs, function = piece(size, dtype, store)
    torch = torch_module()

    def call(turn: int) -> object:
        with torch.no_grad():
            return function(*inputs)

    return _held(call)


_HELD = 4
"""Results that stay in memory while the next are written."""


def _held(call: Call) -> Call:
    results: list[object] = [None] * _HELD

    def held(turn: int) -> object:
        results[turn % _HELD] = call(turn)
        return None

    return held


def _gemm(size: Sizes, dtype: str, store: Store) -> Call:
    linear = torch_module().nn.functional.linear
    inputs = store.cold(dtype, size["m"], size["k"])
    weights = store.cold(dtype, size["n"], size["k"])
    return _held(lambda turn: linear(inputs[turn % len(inputs)], weights[turn % len(weights)]))


def _even_counts(rows: int, experts: int) -> Any:
    torch = torch_module()
    return torch.tensor([rows // experts + (e < rows % experts) for e in range(experts)])


def _grouped(size: Sizes, dtype: str, store: Store, *, weights: bool) -> Call:
    torch = torch_module()
    experts, rows, n, k = (size[name] for name in ("experts", "rows", "n", "k"))
    counts = _even_counts(rows, experts).to(store.target.kind)
    inputs = store.cold(dtype, rows, k)
    if weights:
        all_weights = store.cold(dtype, experts, k, n)
        return _held(
            lambda turn: pieces.grouped_mm(
                inputs[turn % len(inputs)],
                all_weights[turn % len(all_weights)],
                counts,
                in_one_call=store.in_one_call,
            )
        )
    grad = store.warm(dtype, rows, n)
    ends = torch.cumsum(counts, 0).to(torch.int32)
    product = torch.nn.functional.grouped_mm
    return _held(lambda turn: product(inputs[turn % len(inputs)].t(), grad, offs=ends))


def _decode(size: Sizes, dtype: str, store: Store) -> Call:
    shape = (size["sequences"], size["length"], size["kv_heads"], size["head_dim"])
    caches = store.cold(dtype, *shape)
    q = store.warm(dtype, shape[0], size["heads"], 1, shape[3])

    def call(turn: int) -> object:
        k, v = caches[2 * turn % len(caches)], caches[(2 * turn + 1) % len(caches)]
        return pieces.attend(q, k.transpose(1, 2), v.transpose(1, 2), causal=False)

    return call


Inputs = tuple[Any, ...]
Piece = Callable[[Sizes, str, Store], tuple[Inputs, Callable[..., Any]]]
"""Gives the inputs that have gradients, and what maps them to outputs."""


def _prefill(size: Sizes, dtype: str, store: Store) -> tuple[Inputs, Callable[..., Any]]:
    def make(heads: int) -> Any:
        shape = (size["sequences"], size["length"], heads, size["head_dim"])
        return store.warm(dtype, *shape).transpose(1, 2)

    inputs = (make(size["heads"]), make(size["kv_heads"]), make(size["kv_heads"]))
    return inputs, lambda q, k, v: pieces.attend(q, k, v, causal=True)


def _norm(size: Sizes, dtype: str, store: Store) -> tuple[Inputs, Callable[..., Any]]:
    shape = (size["rows"], size["width"])
    weight = store.warm(dtype, size["width"])
    return (store.warm(dtype, *shape), store.warm(dtype, *shape), weight), pieces.add_norm


def _rope(size: Sizes, dtype: str, store: Store) -> tuple[Inputs, Callable[..., Any]]:
    heads = pieces.Heads(size["heads"], size["kv_heads"], size["head_dim"])
    qkv = store.warm(dtype, 1, size["rows"], heads.width)
    cos, sin = pieces.rotary(size["rows"], heads.head_dim, qkv)
    return (qkv,), lambda x: pieces.split_heads(x, cos, sin, heads)


def _activation(size: Sizes, dtype: str, store: Store) -> tuple[Inputs, Callable[..., Any]]:
    return (store.warm(dtype, size["rows"], 2 * size["width"]),), pieces.swiglu


def _cross_entropy(size: Sizes, dtype: str, store: Store) -> tuple[Inputs, Callable[..., Any]]:
    torch = torch_module()
    targets = torch.randint(size["width"], (size["rows"],), device=store.target.kind)
    logits = store.warm(dtype, size["rows"], size["width"])
    return (logits,), lambda x: pieces.cross_entropy(x, targets)


def _embedding(size: Sizes, dtype: str, store: Store) -> tuple[Inputs, Callable[..., Any]]:
    torch = torch_module()
    tokens = torch.randint(size["vocab"], (size["rows"],), device=store.target.kind)
    table = store.warm(dtype, size["vocab"], size["width"])
    return (table,), lambda x: pieces.embed(tokens, x)


def _gate(size: Sizes, dtype: str, store: Store) -> tuple[Inputs, Callable[..., Any]]:
    top_k = size["top_k"]
    return (store.warm(dtype, size["rows"], size["width"]),), lambda x: pieces.gate(x, top_k)[0]


def _assigned(size: Sizes, store: Store) -> Any:
    torch = torch_module()
    rows, top_k, device = size["rows"], size["top_k"], store.target.kind
    experts = torch.rand(rows, max(8, top_k), device=device).topk(top_k, -1).indices
    return pieces.assign(experts, max(8, top_k))


def _permute(size: Sizes, dtype: str, store: Store) -> tuple[Inputs, Callable[..., Any]]:
    tokens = _assigned(size, store).tokens
    return (store.warm(dtype, size["rows"], size["width"]),), lambda x: pieces.permute(x, tokens)


def _unpermute(size: Sizes, dtype: str, store: Store) -> tuple[Inputs, Callable[..., Any]]:
    rows, assigned = size["rows"], _assigned(size, store)
    sent = store.warm(dtype, rows * size["top_k"], size["width"])
    weights = store.warm(dtype, rows, size["top_k"])
    return (sent, weights), lambda x, w: pieces.unpermute(x, w, assigned, rows)


_PIECES: Mapping[str, Piece] = {
    "norm": _norm, "rope": _rope, "activation": _activation, "cross_entropy": _cross_entropy,
    "embedding": _embedding, "gate": _gate, "permute": _permute, "unpermute": _unpermute,
}  # fmt: skip


_COPIES, _COPIED_BYTES = 8, 2**22
"""Passes through autograd that share one call of its engine: the smaller, the more."""


def _backward(case: Case, piece: Piece | None, store: Store) -> Work:
    """Return a call that goes back through several copies, so that the engine's start is shared."""
    torch = torch_module()
    if piece is None:
        raise ValueError(f"{case.variant} has no backward pass")
    inputs, function = piece(case.sizes, case.dtype, store)
    size = sum(x.numel() * x.element_size() for x in inputs)
    copies = int(max(1, min(_COPIES, _COPIED_BYTES // size)))
    roots: list[Any] = []
    leaves: list[Any] = []
    grads: list[Any] = []
    for _ in range(copies):
        own = [x.detach().clone().requires_grad_() for x in inputs]
        out = function(*own)
        outputs = out if isinstance(out, tuple) else (out,)
        roots += outputs
        leaves += own
        grads += [torch.randn_like(part) for part in outputs]

    def call(turn: int) -> object:
        return torch.autograd.grad(roots, leaves, grads, retain_graph=True)

    return Work(call, copies)


def _add(size: Sizes, dtype: str, store: Store) -> Call:
    x, y = (store.warm(dtype, size["rows"], size["width"]) for _ in range(2))
    return lambda turn: x + y


def _cache(size: Sizes, dtype: str, store: Store) -> Call:
    cache = store.warm(dtype, size["rows"], 1, 64, size["width"])
    new = store.warm(dtype, size["rows"], 1, 1, size["width"])
    return lambda turn: pieces.append_cache(cache, new, turn % 63)


def _assign(size: Sizes, dtype: str, store: Store) -> Call:
    torch = torch_module()
    experts = torch.rand(size["rows"], size["width"], device=store.target.kind)
    chosen = experts.topk(size["top_k"], -1).indices
    return lambda turn: pieces.assign(chosen, size["width"], size["rows"])


def _copy(size: Sizes, dtype: str, store: Store) -> Call:
    count = size["bytes"] // torch_dtype(dtype).itemsize
    source, goal = store.warm(dtype, count), store.warm(dtype, count)
    return lambda turn: goal.copy_(source)


def _host_to_device(size: Sizes, dtype: str, store: Store) -> Call:
    torch = torch_module()
    source = torch.randn(size["bytes"] // 4)
    if store.target.kind == "cuda":
        source = source.pin_memory()
    goal = torch.empty(source.shape, device=store.target.kind)
    return lambda turn: goal.copy_(source, non_blocking=True)


def _launch(size: Sizes, dtype: str, store: Store) -> Call:
    x, count = store.warm(dtype, 16), size["count"]

    def call(turn: int) -> object:
        for _ in range(count):
            x.add_(1e-6)
        return x

    return call


def _graph_launch(size: Sizes, dtype: str, store: Store) -> Call:
    torch = torch_module()
    call = _launch(size, dtype, store)
    call(0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call(0)
    return lambda turn: graph.replay()


def _adamw(size: Sizes, dtype: str, store: Store, **how: bool) -> Call:
    torch = torch_module()
    each = size["params"] // size["tensors"]
    weights = [store.warm(dtype, each).requires_grad_() for _ in range(size["tensors"])]
    for weight in weights:
        weight.grad = store.warm(dtype, each)
    optimizer = torch.optim.AdamW(weights, lr=1e-5, **how)
    return lambda turn: optimizer.step()


_PLAIN: Mapping[str, Callable[[Sizes, str, Store], Call]] = {
    "add": _add,
    "cache": _cache,
    "assign": _assign,
    "copy": _copy,
    "host_to_device": _host_to_device,
    "eager": _launch,
    "graph": _graph_launch,
    "adamw_fused": lambda size, dtype, store: _adamw(size, dtype, store, fused=True),
    "adamw_foreach": lambda size, dtype, store: _adamw(size, dtype, store, foreach=True),
}
"""Pieces without a backward pass of their own."""
