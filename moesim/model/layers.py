"""The operators of a whole layer, of the embedding and of the logits, for one rank's share."""

from dataclasses import replace

from moesim.model.architecture import Architecture, DenseFfn, Layer, MoeFfn
from moesim.model.attention import (
    attention_operators,
    cross_attention_operators,
    entry_width,
)
from moesim.model.cross_entropy import loss_operators
from moesim.model.ffn import ffn_operators
from moesim.model.fusions import with_passes
from moesim.model.operators import Collective, CollectiveKind, Gemm, Operator, Pointwise
from moesim.model.quantisation import with_casts
from moesim.model.sampling import REJECTION_ROUNDS, Sampling, SamplingMethod
from moesim.model.shapes import Shape, Shard, local_tokens, sequence_shard_tokens


def layer_operators(
    layer: Layer, hidden: int, shape: Shape, shard: Shard,
    *, rows: tuple[int, ...] = (), copies: float | None = None,
) -> list[Operator]:  # fmt: skip
    """Return the forward operators of `layer` in order.

    `rows` are the rows of each local expert and `copies` the rows sent per token (None: one per
    choice); a layer without experts ignores both.
    """
    operators = [
        norm("attention_norm", hidden, shape, shard),
        *_enter(entry_width(layer.attention, hidden), shape, shard),
        *attention_operators(layer.attention, hidden, shape, shard),
        *_leave(hidden, shape, shard),
    ]
    if layer.cross_attention is not None:
        operators += [
            norm("cross_attention_norm", hidden, shape, shard),
            *_enter(hidden, shape, shard),
            *_enter(hidden, _memory(shape), shard),
            *cross_attention_operators(layer.cross_attention, hidden, shape, shard),
            *_leave(hidden, shape, shard),
        ]
    operators.append(norm("ffn_norm", hidden, shape, shard))
    operators += _ffn_block(layer, hidden, shape, shard, rows, copies)
    return with_casts(with_passes(operators, shard.fusions), shard.quantisation)


def _ffn_block(
    layer: Layer,
    hidden: int,
    shape: Shape,
    shard: Shard,
    rows: tuple[int, ...],
    copies: float | None,
) -> list[Operator]:
    inner = ffn_operators(layer.ffn, hidden, shape, shard, rows, copies)
    # routed experts take their tokens from the sequence shard; a dense part needs all of them
    if isinstance(layer.ffn, DenseFfn) or _has_dense_part(layer.ffn):
        module = "mlp" if isinstance(layer.ffn, DenseFfn) else "shared"
        enter = _enter(hidden, shape, shard, module)
        return [*enter, *inner, *_leave(hidden, shape, shard, module)]
    return inner


def _has_dense_part(ffn: MoeFfn) -> bool:
    return bool(ffn.shared_width or ffn.parallel_dense_width)


def norm(name: str, hidden: int, shape: Shape, shard: Shard) -> Pointwise:
    """Return a normalisation with the residual addition before it."""
    tokens = float(sequence_shard_tokens(shape, shard))
    elements = tokens * hidden
    return Pointwise(
        name=name, module="layernorm", input_from="residual", rows=tokens,
        elements_read=2 * elements, elements_written=2 * elements, elements_saved=elements,
        dtype=shard.wide,
    )  # fmt: skip


def _activation_bytes(hidden: int, shape: Shape, shard: Shard) -> float:
    return shard.wide_bytes * local_tokens(shape, shard) * hidden


def _enter(width: int, shape: Shape, shard: Shard, module: str = "tp") -> list[Operator]:
    if shard.tp == 1 or not shard.sequence_parallel:
        return []
    payload = _activation_bytes(width, shape, shard)
    return [_tensor_parallel("tp_all_gather", "all_gather", payload, module)]


def _leave(hidden: int, shape: Shape, shard: Shard, module: str = "tp") -> list[Operator]:
    if shard.tp == 1:
        return []
    payload = _activation_bytes(hidden, shape, shard)
    if shard.sequence_parallel:
        return [_tensor_parallel("tp_reduce_scatter", "reduce_scatter", payload, module)]
    return [_tensor_parallel("tp_all_reduce", "all_reduce", payload, module)]


def _tensor_parallel(name: str, kind: CollectiveKind, payload: float, module: str) -> Collective:
    return Collective(name=name, module=module, kind=kind, group="tp", payload_bytes=payload)


def embedding_operators(hidden: int, shape: Shape, shard: Shard) -> list[Operator]:
    """Return the look-up of the input embedding."""
    tokens = float(local_tokens(shape, shard))
    elements = tokens * hidden
    lookup = Pointwise(
        name="embedding", module="embedding", input_from="tokens", rows=tokens,
        elements_read=elements, elements_written=elements, elements_saved=0.0, dtype=shard.wide,
    )  # fmt: skip
    return with_passes([lookup, *_leave(hidden, shape, shard)], shard.fusions)


def logits_operators(architecture: Architecture, shape: Shape, shard: Shard) -> list[Operator]:
    """Return final norm, logits and cross-entropy."""
    tokens, hidden = local_tokens(shape, shard), architecture.hidden
    vocab = max(1, architecture.vocab // shard.tp)
    return [
        *with_passes([norm("final_norm", hidden, shape, shard)], shard.fusions),
        *_enter(hidden, shape, shard),
        Gemm(
            name="logits", module="logits", input_from="layernorm", m=tokens, n=vocab, k=hidden,
            dtype=shard.wide, input_share=shard.gathered_share,
        ),
        *loss_operators(shard.cross_entropy, tokens, vocab, dtype=shard.wide, tp=shard.tp),
    ]  # fmt: skip


def sampling_operators(
    vocab: int, sequences: int, shard: Shard, method: SamplingMethod, *,
    rounds: int = REJECTION_ROUNDS,
) -> list[Operator]:  # fmt: skip
    """Return what an engine does from the logits of `sequences` to their next tokens.

    Tensor parallel ranks hold a share of the vocabulary each and gather all of it first; every
    rank then draws the same tokens.
    """
    chosen = Sampling(
        name="sampling", module="sampling", input_from="logits", rows=sequences, vocab=vocab,
        method=method, dtype=shard.wide, rounds=rounds,
    )  # fmt: skip
    if shard.tp == 1:
        return [chosen]
    payload = shard.wide_bytes * sequences * vocab
    return [_tensor_parallel("logits_gather", "all_gather", payload, "sampling"), chosen]


def mtp_operators(architecture: Architecture, shape: Shape, shard: Shard) -> list[Operator]:
    """Return the projection of one multi-token-prediction module (hidden and embedding to hidden).

    Source: DeepSeek-V3 technical report, arXiv 2412.19437, equation 21.
    """
    tokens, hidden = local_tokens(shape, shard), architecture.hidden
    operators = [
        norm("mtp_norm", hidden, shape, shard),
        *_enter(2 * hidden, shape, shard),
        Gemm(
            name="mtp_projection", module="mtp", input_from="layernorm", m=tokens,
            n=max(1, hidden // shard.tp), k=2 * hidden, dtype=shard.dtype,
            input_share=shard.gathered_share,
        ),
        *_gather_columns(hidden, shape, shard),
    ]  # fmt: skip
    return with_casts(with_passes(operators, shard.fusions), shard.quantisation)


def _gather_columns(hidden: int, shape: Shape, shard: Shard) -> list[Operator]:
    """The projection is cut by columns; the layer behind it needs them all."""
    if shard.tp == 1:
        return []
    payload = _activation_bytes(hidden, shape, shard)
    return [_tensor_parallel("tp_all_gather", "all_gather", payload, "tp")]


def encoder_end(hidden: int, shape: Shape, shard: Shard) -> list[Operator]:
    """Return the encoder's final norm; it keeps its input and its output, which is kept once.

    Each decoder layer reads that output for the keys and values of its cross-attention.
    """
    once = norm("encoder_norm", hidden, shape, shard)
    twice = replace(once, elements_saved=2 * once.elements_saved)
    return with_passes([twice], shard.fusions)


def _memory(shape: Shape) -> Shape:
    return Shape(sequences=shape.sequences, length=shape.memory_length)
