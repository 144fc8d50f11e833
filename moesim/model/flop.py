"""Useful FLOP of a network: what one token needs, whatever machine computes it.

Matrix products only, a multiply-add being 2; attention over the lower triangle; the router and the
logits count, the embedding look-up does not; a multi-token-prediction module counts as one more
layer with its projection and logits.
"""

from moesim.model.architecture import Architecture, Layer, MoeFfn, Run, layers_of
from moesim.model.layers import layer_operators, logits_operators, mtp_operators
from moesim.model.operators import Operator, flop
from moesim.model.shapes import Shape, Shard


def forward_flop(architecture: Architecture, decoder: Shape, encoder: Shape | None = None) -> float:
    """Return the FLOP of one forward pass over the sequences of these shapes."""
    total = _stack_flop(architecture.decoder, architecture.hidden, decoder)
    if encoder is not None:
        total += _stack_flop(architecture.encoder, architecture.hidden, encoder)
    logits = sum(flop(op) for op in logits_operators(architecture, decoder, Shard()))
    if not architecture.mtp_layers:
        return total + logits
    last = list(layers_of(architecture.decoder))[-1]
    projection = sum(flop(op) for op in mtp_operators(architecture, decoder, Shard()))
    module = projection + layer_flop(last, architecture.hidden, decoder) + logits
    return total + logits + architecture.mtp_layers * module


def training_flop_per_token(
    architecture: Architecture, length: int, target_length: int = 0
) -> float:
    """Return forward and backward FLOP per token: three times the forward pass.

    For an encoder-decoder model `length` tokens enter the encoder and `target_length` the
    decoder; the result is per token of both together.
    """
    if not architecture.encoder:
        shape = Shape(sequences=1, length=length)
        return 3 * forward_flop(architecture, shape) / length
    decoder = Shape(sequences=1, length=target_length or length, memory_length=length)
    encoder = Shape(sequences=1, length=length)
    return 3 * forward_flop(architecture, decoder, encoder) / (length + decoder.length)


def layer_flop(layer: Layer, hidden: int, shape: Shape) -> float:
    """Return the forward FLOP of one whole layer."""
    return sum(flop(op) for op in whole_layer(layer, hidden, shape))


def whole_layer(layer: Layer, hidden: int, shape: Shape, computed: float = 1.0) -> list[Operator]:
    """Return the operators of a layer that nothing cuts; `computed` is the share not dropped."""
    rows: tuple[int, ...] = ()
    if isinstance(layer.ffn, MoeFfn):
        rows = (round(computed * shape.sequences * shape.length * layer.ffn.top_k),)
    return layer_operators(layer, hidden, shape, Shard(), rows=rows)


def _stack_flop(stack: tuple[Run, ...], hidden: int, shape: Shape) -> float:
    return sum(run.count * layer_flop(run.layer, hidden, shape) for run in stack)
