"""Which layers lie on which stage, and what else stands before the first and after the last."""

from dataclasses import dataclass
from itertools import pairwise

from moesim.model.architecture import Architecture, Layer, layers_of


@dataclass(frozen=True, slots=True)
class Placed:
    """A layer of the stack, with its number for random streams and reports."""

    number: int
    layer: Layer
    in_encoder: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The layers of one model chunk, and the ends of the network that lie with it."""

    layers: tuple[Placed, ...]
    has_embedding: bool
    has_logits: bool
    mtp_layers: int = 0


def chunks(architecture: Architecture, stages: int, per_stage: int = 1) -> list[list[Chunk]]:
    """Return chunks[stage][chunk]; chunk c of stage s is number c * stages + s of the network.

    Layers are spread as evenly as whole layers allow, the longer chunks first: the last stage
    also has the logits. Multi-token-prediction layers lie on the last chunk.
    """
    placed = _placed(architecture)
    positions = stages * per_stage
    short, longer = divmod(len(placed), positions)
    ends = [0]
    for position in range(positions):
        ends.append(ends[-1] + short + (1 if position < longer else 0))
    parts = [placed[start:end] for start, end in pairwise(ends)]
    return [
        [_chunk(architecture, parts, c * stages + s) for c in range(per_stage)]
        for s in range(stages)
    ]


def _placed(architecture: Architecture) -> list[Placed]:
    encoder = list(layers_of(architecture.encoder))
    decoder = list(layers_of(architecture.decoder))
    return [
        *(Placed(i, layer, True) for i, layer in enumerate(encoder)),
        *(Placed(len(encoder) + i, layer) for i, layer in enumerate(decoder)),
    ]


def _chunk(architecture: Architecture, parts: list[list[Placed]], position: int) -> Chunk:
    last = position == len(parts) - 1
    return Chunk(
        layers=tuple(parts[position]),
        has_embedding=position == 0,
        has_logits=last,
        mtp_layers=architecture.mtp_layers if last else 0,
    )
