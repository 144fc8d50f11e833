"""What one rank of a stage computes for a micro-batch: the operators of its chunk."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from moesim.cost.masked import with_masks
from moesim.cost.optimizer import OptimizerRule
from moesim.cost.parameters import StageParams, mtp_params, rank_layer_params
from moesim.cost.pipeline import Chunk, Placed
from moesim.model.architecture import Architecture, MoeFfn, layers_of
from moesim.model.embedding_gradient import with_table_gradient
from moesim.model.layers import (
    embedding_operators,
    encoder_end,
    layer_operators,
    logits_operators,
    mtp_operators,
)
from moesim.model.operators import Operator
from moesim.model.parameters import embedding_params
from moesim.model.shapes import Shape, Shard, sequence_shard_tokens
from moesim.moe.assignment import LayerLoad

NO_PARAMS = StageParams()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The shape of a micro-batch in the encoder and in the decoder."""

    decoder: Shape
    encoder: Shape | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A layer, or an end of the network, as operators; `skew` is its exchange imbalance."""

    operators: list[Operator]
    """Those of the rank whose experts have the most rows."""
    skew: float = 1.0
    is_layer: bool = True
    rank_rows: tuple[int, ...] = ()
    """Rows of the experts of every rank; empty where there are none."""
    params: StageParams = NO_PARAMS
    """What the rank holds of a layer; the ends of the network are counted by chunk."""
    dropless: bool = False
    """Whether buffers of experts have the size of what was routed, so that the host must know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is trained, with everything that one rank needs to know of it."""

    architecture: Architecture
    batch: Batch
    shard: Shard
    recompute: tuple[str, ...]
    optimizer: OptimizerRule
    offload_layers: int = 0
    """Layers of each chunk, the first ones, whose kept activations go to the host."""
    exchange_overlap: str = "none"
    """What runs beside dispatch and combine: none, shared_expert or batch."""
    masks: bool = False
    """Whether tokens enter the buffers of experts by products with one-hot masks."""
    sums_gradients: bool = True
    """Whether a rank sums the gradients of micro-batches itself, before it shares them."""
    delayed_weights: bool = False
    """Whether exchanges of gradients go before the gradients of a layer's weights."""


Loads = Mapping[int, LayerLoad]
"""What routing did, by the number of the layer."""


def blocks(job: Job, chunk: Chunk, loads: Loads) -> list[Block]:
    """Return the forward work of a chunk, block by block in order."""
    architecture, batch, shard = job.architecture, job.batch, job.shard
    found: list[Block] = []
    cache: dict[tuple[object, ...], Block] = {}
    was_encoder = False
    if chunk.has_embedding:
        found += _embeddings(job)
    for placed in chunk.layers:
        if was_encoder and not placed.in_encoder and batch.encoder is not None:
            end = encoder_end(architecture.hidden, batch.encoder, shard)
            found.append(Block(end, is_layer=False))
        was_encoder = placed.in_encoder
        load = loads.get(placed.number)
        key = (placed.layer, placed.in_encoder, load and (load.fullest_rows, load.rank_rows))
        if key not in cache:
            cache[key] = _layer(job, placed, load)
        found.append(cache[key])
    for number in range(chunk.mtp_layers):
        found += _mtp(job, number, loads)
    if chunk.has_logits:
        logits = logits_operators(architecture, batch.decoder, shard)
        found.append(Block(logits, is_layer=False))
    return found


def _embeddings(job: Job) -> list[Block]:
    architecture, batch, shard = job.architecture, job.batch, job.shard
    shapes = [shape for shape in (batch.encoder, batch.decoder) if shape is not None]
    buffer_bytes = job.optimizer.gradient_bytes if job.sums_gradients else None
    table = embedding_params(architecture) / shard.tp
    return [
        Block(
            with_table_gradient(
                embedding_operators(architecture.hidden, shape, shard), table, buffer_bytes
            ),
            is_layer=False,
        )
        for shape in shapes
    ]


def _layer(job: Job, placed: Placed, load: LayerLoad | None) -> Block:
    architecture, batch, shard = job.architecture, job.batch, job.shard
    shape = batch.encoder if placed.in_encoder and batch.encoder else batch.decoder
    rows: tuple[int, ...] = ()
    by_rank: tuple[int, ...] = ()
    copies, skew, dropless = None, 1.0, False
    if isinstance(placed.layer.ffn, MoeFfn) and load is not None:
        rows, copies, skew = load.fullest_rows, load.copies, load.rank_imbalance
        by_rank = load.rank_rows
        dropless = load.padded_slots is None and placed.layer.ffn.num_experts > 1
    operators = layer_operators(
        placed.layer, architecture.hidden, shape, shard, rows=rows, copies=copies
    )
    if job.masks and isinstance(placed.layer.ffn, MoeFfn) and load is not None:
        local = sequence_shard_tokens(shape, shard)
        operators = with_masks(
            operators, placed.layer.ffn, load, local, architecture.hidden, shard.wide
        )
    params = rank_layer_params(placed.layer, architecture.hidden, shard)
    return Block(operators, skew, rank_rows=by_rank, params=params, dropless=dropless)


def mtp_number(architecture: Architecture, module: int) -> int:
    """Return the layer number of a multi-token-prediction module."""
    return architecture.num_layers + module


def _mtp(job: Job, module: int, loads: Loads) -> list[Block]:
    """One more layer like the last, its projection before it and its own logits after it."""
    architecture, batch, shard = job.architecture, job.batch, job.shard
    last = list(layers_of(architecture.decoder))[-1]
    number = mtp_number(architecture, module)
    layer = _layer(job, Placed(number, last), loads.get(number))
    projection = mtp_operators(architecture, batch.decoder, shard)
    return [
        replace(
            layer,
            operators=[*projection, *layer.operators],
            params=mtp_params(architecture, last, shard),
        ),
        Block(logits_operators(architecture, batch.decoder, shard), is_layer=False),
    ]
