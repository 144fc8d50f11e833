"""The operators of a dense feed-forward network and of a mixture of experts, for one rank."""

from math import comb

from moesim.model.architecture import DenseFfn, FfnKind, MoeFfn
from moesim.model.operators import Collective, Exchange, Gemm, GroupedGemm, Operator, Pointwise
from moesim.model.shapes import Shape, Shard, local_tokens, sequence_shard_tokens


def dense_operators(
    width: int, gated: bool, hidden: int, tokens: int, shard: Shard, *, beside_experts: bool = False
) -> list[Operator]:
    """Return gate and up projection, activation and down projection; tp cuts the width.

    Beside experts the input is the one that the router keeps already.
    """
    module = "shared" if beside_experts else "mlp"
    local = max(1, width // shard.tp)
    up = local * (2 if gated else 1)
    return [
        Gemm(
            name="ffn_up", module=module, input_from="layernorm", m=tokens, n=up, k=hidden,
            input_share=0.0 if beside_experts else shard.gathered_share,
            dtype=shard.dtype,
        ),
        activation("ffn_activation", module, tokens, (up, local), shard.wide),
        Gemm(
            name="ffn_down", module=module, input_from=module, m=tokens, n=hidden, k=local,
            dtype=shard.dtype,
        ),
    ]  # fmt: skip


def activation(name: str, module: str, rows: int, widths: tuple[int, int], dtype: str) -> Pointwise:
    """Return the activation function between projections of these widths; it keeps its input."""
    up, local = widths
    return Pointwise(
        name=name, module=module, input_from=module.removesuffix("_act"), rows=float(rows),
        elements_read=float(rows * up), elements_written=float(rows * local),
        elements_saved=float(rows * up), dtype=dtype,
    )  # fmt: skip


def ffn_operators(
    ffn: FfnKind,
    hidden: int,
    shape: Shape,
    shard: Shard,
    rows: tuple[int, ...],
    copies: float | None,
) -> list[Operator]:
    """Return the operators of the block's feed-forward part.

    `rows` are the rows of each local expert, `copies` the rows sent per token (None: one per
    choice); a dense network ignores both.
    """
    if isinstance(ffn, DenseFfn):
        return dense_operators(ffn.width, ffn.gated, hidden, local_tokens(shape, shard), shard)
    return _moe(ffn, hidden, shape, shard, rows, copies)


def _moe(
    ffn: MoeFfn,
    hidden: int,
    shape: Shape,
    shard: Shard,
    rows: tuple[int, ...],
    copies: float | None,
) -> list[Operator]:
    tokens = sequence_shard_tokens(shape, shard)
    local = max(1, ffn.expert_width // shard.etp)
    up = local * (2 if ffn.gated else 1)
    received = sum(rows)
    sent = tokens * (float(ffn.top_k) if copies is None else copies)
    once = shard.sends_once and shard.ep > 1 and received > 0
    copied = (tokens * hidden, sent * hidden)
    spread = (received * hidden * _distinct_share(ffn, shard.ep), float(received * hidden))
    operators: list[Operator] = [
        Gemm(
            name="router", module="router", input_from="layernorm", m=tokens, n=ffn.num_experts,
            k=hidden, dtype=shard.wide,
        ),
        *([] if once else [_permutation("permute", tokens, copied, shard)]),
        _exchange("dispatch", ffn, hidden, sent / tokens, tokens, shard),
        *_expert_tensor("all_gather", received, hidden, shard),
        *([_permutation("permute", spread[0] / hidden, spread, shard)] if once
          else _sorted("sort_by_expert", rows, hidden, shard)),
        GroupedGemm(
            name="expert_up", module="moe", input_from="dispatch", rows=rows, n=up, k=hidden,
            dtype=shard.dtype,
        ),
        activation("expert_activation", "moe_act", received, (up, local), shard.wide),
        GroupedGemm(
            name="expert_down", module="moe", input_from="moe_act", rows=rows, n=hidden, k=local,
            dtype=shard.dtype,
        ),
        *([_permutation("unpermute", spread[0] / hidden, spread[::-1], shard)] if once
          else _sorted("sort_by_source", rows, hidden, shard)),
        *_expert_tensor("reduce_scatter", received, hidden, shard),
        _exchange("combine", ffn, hidden, sent / tokens, tokens, shard),
        *([] if once else [_permutation("unpermute", tokens, copied[::-1], shard)]),
    ]  # fmt: skip
    for width in (ffn.shared_width, ffn.parallel_dense_width):
        if width:
            operators += dense_operators(
                width, ffn.gated, hidden, local_tokens(shape, shard), shard, beside_experts=True
            )
    return operators


def _distinct_share(ffn: MoeFfn, ranks: int) -> float:
    """Return the rows that a rank receives over those of its experts, where a token comes once.

    G (1 - binom(E - E/G, k) / binom(E, k)) / k, the distinct ranks of k uniform choices; groups of
    experts that a token keeps to are left out.
    """
    experts, chosen = ffn.num_experts, ffn.top_k
    missed = comb(experts - experts // ranks, chosen) / comb(experts, chosen)
    return ranks * (1 - missed) / chosen


def _permutation(name: str, rows: float, moved: tuple[float, float], shard: Shard) -> Pointwise:
    """Return a permutation of `rows` tokens that reads and writes as many elements as `moved`."""
    read, written = moved
    return Pointwise(
        name=name, module="moe", input_from="moe", rows=rows, elements_read=read,
        elements_written=written, elements_saved=0.0, dtype=shard.wide,
    )  # fmt: skip


def _sorted(name: str, rows: tuple[int, ...], hidden: int, shard: Shard) -> list[Operator]:
    """Rows arrive by source rank; with several experts on a rank they are sorted by expert."""
    elements = float(sum(rows) * hidden)
    moved = (elements, elements)
    return [_permutation(name, float(sum(rows)), moved, shard)] if len(rows) > 1 else []


def _exchange(
    name: str, ffn: MoeFfn, hidden: int, copies: float, tokens: int, shard: Shard
) -> Exchange:
    """Return dispatch or combine; a narrow dispatch type holds for what enters the experts.

    That is activations forward and, on the way back, the gradients of the combine (DeepSeek-V3
    technical report, arXiv 2412.19437, section 3.3.3).
    """
    narrow = shard.dispatch_dtype or shard.wide
    forward, back = (narrow, shard.wide) if name == "dispatch" else (shard.wide, narrow)
    return Exchange(
        name=name, module="moe", tokens=tokens, hidden=hidden, top_k=ffn.top_k,
        num_experts=ffn.num_experts, copies=copies, dtype=forward, backward_dtype=back,
        groups=ffn.groups, groups_per_token=ffn.groups_per_token, group_best=ffn.group_best,
    )  # fmt: skip


def _expert_tensor(kind: str, rows: int, hidden: int, shard: Shard) -> list[Operator]:
    if shard.etp == 1:
        return []
    return [
        Collective(
            name=f"etp_{kind}", module="moe",
            kind="all_gather" if kind == "all_gather" else "reduce_scatter", group="etp",
            payload_bytes=shard.wide_bytes * rows * hidden,
        )
    ]  # fmt: skip
