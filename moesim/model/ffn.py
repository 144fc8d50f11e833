"""The operators of a dense feed-forward network and of a mixture of experts, for one rank."""

from moesim.model.architecture import DenseFfn, FfnKind, MoeFfn
from moesim.model.operators import Collective, Exchange, Gemm, GroupedGemm, Operator, Pointwise
from moesim.model.shapes import Shape, Shard, local_tokens, sequence_shard_tokens


def dense_operators(
    width: int, gated: bool, hidden: int, tokens: int, shard: Shard
) -> list[Operator]:
    """Return gate and up projection, activation and down projection; tp cuts the width."""
    local = max(1, width // shard.tp)
    up = local * (2 if gated else 1)
    return [
        Gemm(
            name="ffn_up", module="mlp", input_from="layernorm", m=tokens, n=up, k=hidden,
            dtype=shard.dtype,
        ),
        activation("ffn_activation", "mlp", tokens, up, local),
        Gemm(
            name="ffn_down", module="mlp", input_from="mlp", m=tokens, n=hidden, k=local,
            dtype=shard.dtype,
        ),
    ]  # fmt: skip


def activation(name: str, module: str, rows: int, up: int, local: int) -> Pointwise:
    """Return the activation function between two projections; it keeps its input."""
    return Pointwise(
        name=name, module=module, input_from=module.removesuffix("_act"),
        elements_read=float(rows * up), elements_written=float(rows * local),
        elements_saved=float(rows * up),
    )  # fmt: skip


def ffn_operators(
    ffn: FfnKind, hidden: int, shape: Shape, shard: Shard, rows: tuple[int, ...], slots: int | None
) -> list[Operator]:
    """Return the operators of the block's feed-forward part.

    `rows` are the rows of each local expert, `slots` the fixed slots per expert and source rank
    (None without a capacity); a dense network ignores both.
    """
    if isinstance(ffn, DenseFfn):
        return dense_operators(ffn.width, ffn.gated, hidden, local_tokens(shape, shard), shard)
    return _moe(ffn, hidden, shape, shard, rows, slots)


def _moe(
    ffn: MoeFfn, hidden: int, shape: Shape, shard: Shard, rows: tuple[int, ...], slots: int | None
) -> list[Operator]:
    tokens = sequence_shard_tokens(shape, shard)
    local = max(1, ffn.expert_width // shard.etp)
    up = local * (2 if ffn.gated else 1)
    received = sum(rows)
    sent = tokens * ffn.top_k if slots is None else slots * ffn.num_experts
    operators: list[Operator] = [
        Gemm(
            name="router", module="router", input_from="layernorm", m=tokens, n=ffn.num_experts,
            k=hidden, dtype="bf16",
        ),
        _permutation("permute", tokens * hidden, sent * hidden),
        _exchange("dispatch", ffn, hidden, tokens, slots),
        *_expert_tensor("all_gather", received, hidden, shard),
        GroupedGemm(
            name="expert_up", module="moe", input_from="dispatch", rows=rows, n=up, k=hidden,
            dtype=shard.dtype,
        ),
        activation("expert_activation", "moe_act", received, up, local),
        GroupedGemm(
            name="expert_down", module="moe", input_from="moe_act", rows=rows, n=hidden, k=local,
            dtype=shard.dtype,
        ),
        *_expert_tensor("reduce_scatter", received, hidden, shard),
        _exchange("combine", ffn, hidden, tokens, slots),
        _permutation("unpermute", sent * hidden, tokens * hidden),
    ]  # fmt: skip
    for width in (ffn.shared_width, ffn.parallel_dense_width):
        if width:
            operators += dense_operators(
                width, ffn.gated, hidden, local_tokens(shape, shard), shard
            )
    return operators


def _permutation(name: str, read: int, written: int) -> Pointwise:
    return Pointwise(
        name=name, module="moe", input_from="moe", elements_read=float(read),
        elements_written=float(written), elements_saved=0.0,
    )  # fmt: skip


def _exchange(name: str, ffn: MoeFfn, hidden: int, tokens: int, slots: int | None) -> Exchange:
    return Exchange(
        name=name, module="moe", tokens=tokens, hidden=hidden, top_k=ffn.top_k,
        num_experts=ffn.num_experts, slots=slots, dtype="bf16", groups=ffn.groups,
        groups_per_token=ffn.groups_per_token,
    )  # fmt: skip


def _expert_tensor(kind: str, rows: int, hidden: int, shard: Shard) -> list[Operator]:
    if shard.etp == 1:
        return []
    return [
        Collective(
            name=f"etp_{kind}", module="moe",
            kind="all_gather" if kind == "all_gather" else "reduce_scatter", group="etp",
            payload_bytes=2.0 * rows * hidden,
        )
    ]  # fmt: skip
