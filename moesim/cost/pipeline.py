"""Which layers lie on which stage, and what else stands before the first and after the last."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

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


def chunks(
    architecture: Architecture, stages: int, per_stage: int = 1, sizes: Sequence[int] | None = None
) -> list[list[Chunk]]:
    """Return chunks[stage][chunk]; chunk c of stage s is number c * stages + s of the network.

    `sizes` are the layers of each chunk in the order of the network, none for a chunk with nothing
    but an end of the network; left out, all are equal.
    Multi-token-prediction layers lie on the last chunk.
    """
    placed = _placed(architecture)
    positions = stages * per_stage
    sizes = sizes or [len(placed) // positions] * positions
    parts = [placed[start:end] for start, end in pairwise([0, *accumulate(sizes)])]
    return [
        [_chunk(architecture, parts, c * stages + s) for c in range(per_stage)]
        for s in range(stages)
    ]


def equal_sizes(layers: int, positions: int) -> tuple[int, ...] | None:
    """Return the layers of each chunk where they come out equal; None where they do not.

    L = n P: n each. L + 1 = n P: the last chunk has one fewer, its place is that of the logits.
    L + 2 = n P: the first one too, for the embedding. A chunk may then hold no layer. Source:
    Megatron-LM, --account-for-loss-in-pipeline-split, --account-for-embedding-in-pipeline-split.
    """
    for missing in (0, 1, 2) if positions > 1 else (0,):
        each, rest = divmod(layers + missing, positions)
        if not rest:
            sizes = [each] * positions
            sizes[-1] -= missing > 0
            sizes[0] -= missing > 1
            return tuple(sizes)
    return None


def balanced(weights: list[float], after: float, parts: int) -> list[int]:
    """Return how many of `weights` each part gets, in order, so that the heaviest is lightest.

    `after` is a weight that the last part bears beside its own. Every part gets at least one.
    """
    low, high = max(*weights, after + weights[-1]), (sum(weights) + after) * (1 + 1e-9)
    for _ in range(60):
        middle = (low + high) / 2
        fits = _greedy(weights, after, parts, middle) is not None
        low, high = (low, middle) if fits else (middle, high)
    sizes = _greedy(weights, after, parts, high)
    assert sizes is not None
    return sizes


def _greedy(weights: list[float], after: float, parts: int, limit: float) -> list[int] | None:
    """Fill parts from the last to the first up to `limit`; None where they do not suffice.

    From the last one, since early stages keep more micro-batches in memory and so had better be
    the lighter ones.
    """
    sizes, left, load = [0], len(weights), after
    while left:
        weight = weights[left - 1]
        must_close = sizes[-1] and left <= parts - len(sizes)
        if sizes[-1] and (must_close or load + weight > limit):
            sizes.append(0)
            load = 0.0
        sizes[-1] += 1
        load += weight
        left -= 1
        if load > limit * (1 + 1e-12):
            return None
    return sizes[::-1] if len(sizes) == parts else None


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
