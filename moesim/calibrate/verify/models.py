"""Small decoders in torch, made of the very pieces that the suite measures.

Parameters are plain tensors; with several ranks each holds its share of the experts and a copy of
everything else, and tokens travel by all-to-all with uneven splits.
"""

from dataclasses import dataclass, field
from typing import Any

from moesim.calibrate import pieces
from moesim.calibrate.device import torch_dtype, torch_module
from moesim.calibrate.verify.plan import Small, Trial
from moesim.moe.capacity import megatron


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """The parameters of one decoder layer on one rank."""

    attention_norm: Any
    qkv: Any
    out: Any
    ffn_norm: Any
    router: Any
    """None in a dense layer."""
    up: Any
    """[2 width, hidden], or [local experts, hidden, 2 width]."""
    down: Any

    def shared(self) -> list[Any]:
        """Return what every rank has a copy of."""
        found = [self.attention_norm, self.qkv, self.out, self.ffn_norm]
        return found + ([self.up, self.down] if self.router is None else [self.router])

    def own(self) -> list[Any]:
        """Return what only this rank has: its experts."""
        return [] if self.router is None else [self.up, self.down]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A decoder on one rank."""

    small: Small
    ranks: int
    in_one_call: bool
    table: Any
    layers: tuple[LayerWeights, ...]
    final_norm: Any
    logits: Any
    exchange: Any = None
    """Sends rows to other ranks; None on one rank."""
    dropped: list[float] = field(default_factory=list)
    """Share of the choices dropped, layer by layer as they run."""

    def shared(self) -> list[Any]:
        """Return the parameters that every rank has a copy of."""
        inner = [weight for layer in self.layers for weight in layer.shared()]
        return [self.table, *inner, self.final_norm, self.logits]

    def parameters(self) -> list[Any]:
        """Return all parameters on this rank."""
        return self.shared() + [weight for layer in self.layers for weight in layer.own()]


def make(trial: Trial, device: str, *, ranks: int, in_one_call: bool) -> Model:
    """Return the model of a trial with random weights."""
    torch = torch_module()
    small, dtype = trial.model, torch_dtype(trial.dtype)
    train = trial.phase == "train"

    def weight(*shape: int) -> Any:
        values = torch.randn(shape, device=device) * shape[-1] ** -0.5
        return values.to(dtype).requires_grad_(train)

    def layer() -> LayerWeights:
        heads = pieces.Heads(small.heads, small.kv_heads, small.head_dim)
        hidden, width, local = small.hidden, small.width, small.num_experts // ranks
        return LayerWeights(
            attention_norm=weight(hidden),
            qkv=weight(heads.width, hidden),
            out=weight(hidden, small.heads * small.head_dim),
            ffn_norm=weight(hidden),
            router=weight(small.num_experts, hidden) if local else None,
            up=weight(local, hidden, 2 * width) if local else weight(2 * width, hidden),
            down=weight(local, width, hidden) if local else weight(hidden, width),
        )

    return Model(
        small=small, ranks=ranks, in_one_call=in_one_call,
        table=weight(small.vocab, small.hidden), layers=tuple(layer() for _ in range(small.layers)),
        final_norm=weight(small.hidden), logits=weight(small.vocab, small.hidden),
        exchange=exchange_function() if ranks > 1 else None,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cache:
    """Keys and values of one layer [sequences, kv_heads, room, head_dim]."""

    keys: Any
    values: Any


def hidden_states(
    model: Model, tokens: Any, rotary: tuple[Any, Any], caches: list[Cache] | None, position: int
) -> tuple[Any, Any]:
    """Return what the last layer adds and the residual, [sequences, length, hidden].

    With caches the tokens stand at `position`, behind what the caches hold already.
    """
    torch = torch_module()
    x, residual = None, pieces.embed(tokens, model.table)
    for number, layer in enumerate(model.layers):
        if x is None:
            shape = layer.attention_norm.shape
            h = torch.nn.functional.rms_norm(residual, shape, layer.attention_norm, pieces.EPSILON)
        else:
            h, residual = pieces.add_norm(x, residual, layer.attention_norm)
        cache = caches[number] if caches else None
        x = _attention(model.small, layer, h, rotary, cache, position)
        h, residual = pieces.add_norm(x, residual, layer.ffn_norm)
        x = _ffn(model, layer, h)
    return x, residual


def _attention(
    small: Small, layer: LayerWeights, h: Any, rotary: tuple[Any, Any], cache: Cache | None,
    position: int,
) -> Any:  # fmt: skip
    linear = torch_module().nn.functional.linear
    heads = pieces.Heads(small.heads, small.kv_heads, small.head_dim)
    q, k, v = pieces.split_heads(linear(h, layer.qkv), *rotary, heads)
    if cache is not None:
        k = pieces.append_cache(cache.keys, k, position)
        v = pieces.append_cache(cache.values, v, position)
    mixed = pieces.attend(q, k, v, causal=cache is None)
    return linear(mixed.transpose(1, 2).flatten(2), layer.out)


def _ffn(model: Model, layer: LayerWeights, h: Any) -> Any:
    linear = torch_module().nn.functional.linear
    if layer.router is None:
        return linear(pieces.swiglu(linear(h, layer.up)), layer.down)
    flat = h.flatten(0, 1)
    return _experts(model, layer, flat).view(h.shape)


def _experts(model: Model, layer: LayerWeights, h: Any) -> Any:
    small, tokens = model.small, h.shape[0]
    linear = torch_module().nn.functional.linear
    weights, experts = pieces.gate(linear(h, layer.router), small.top_k)
    slots = None
    if small.capacity_factor:
        slots = megatron(tokens, small.num_experts, small.top_k, small.capacity_factor)
    assigned = pieces.assign(experts, small.num_experts, slots)
    model.dropped.append(1 - len(assigned.order) / experts.numel())
    rows = pieces.permute(h, assigned.tokens)
    if model.ranks == 1:
        rows = _mlp(model, layer, rows, assigned.counts)
    else:
        rows = _travel(model, layer, rows, assigned.counts)
    return pieces.unpermute(rows, weights, assigned, tokens)


def _mlp(model: Model, layer: LayerWeights, rows: Any, counts: Any) -> Any:
    up = pieces.grouped_mm(rows, layer.up, counts, in_one_call=model.in_one_call)
    return pieces.grouped_mm(pieces.swiglu(up), layer.down, counts, in_one_call=model.in_one_call)


def _travel(model: Model, layer: LayerWeights, rows: Any, counts: Any) -> Any:
    """Send rows to the ranks of their experts, sort them by expert there, and send them back."""
    torch = torch_module()
    local = model.small.num_experts // model.ranks
    arriving = torch.empty_like(counts)
    torch.distributed.all_to_all_single(arriving, counts)
    sends = counts.view(model.ranks, local).sum(1).tolist()
    receives = arriving.view(model.ranks, local).sum(1).tolist()
    got = model.exchange(rows, sends, receives)
    expert = torch.arange(local, device=rows.device).repeat(model.ranks)
    order = torch.argsort(expert.repeat_interleave(arriving), stable=True)
    mine = arriving.view(model.ranks, local).sum(0)
    done = _mlp(model, layer, pieces.permute(got, order), mine)
    back = pieces.permute(done, torch.argsort(order))
    return model.exchange(back, receives, sends)


def exchange_function() -> Any:
    """Return exchange(rows, sends, receives): uneven all-to-all that autograd can turn round."""
    torch = torch_module()

    class Exchange(torch.autograd.Function):  # type: ignore[misc,name-defined]
        """An all-to-all whose gradients travel the other way."""

        @staticmethod
        def forward(ctx: Any, rows: Any, sends: list[int], receives: list[int]) -> Any:
            ctx.sends, ctx.receives = sends, receives
            return _send(rows, sends, receives)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> tuple[Any, None, None]:
            return _send(grad, ctx.receives, ctx.sends), None, None

    return Exchange.apply


def _send(rows: Any, sends: list[int], receives: list[int]) -> Any:
    torch = torch_module()
    out = rows.new_empty((sum(receives), rows.shape[1]))
    torch.distributed.all_to_all_single(out, rows.contiguous(), receives, sends)
    return out
