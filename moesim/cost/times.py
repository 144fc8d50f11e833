"""What a cost is: seconds on a stream, with the kind of knowledge behind it."""

from dataclasses import dataclass
from typing import Literal

Tag = Literal["measured", "fitted", "transferred", "roofline", "assumed"]
"""How well a time is known: measured on this very device, fitted to published measurements of its
kind, transferred from another device, from the datasheet alone, or with an assumed efficiency."""

Stream = Literal["compute", "scale-up", "scale-out", "host"]
"""What is busy meanwhile: the device, the network inside domains, the network between them, the
link to the host."""


@dataclass(frozen=True, slots=True)
class Known:
    """How long one execution of something takes, and how well that is known."""

    seconds: float
    tag: Tag
    uncertainty: float
    """Relative standard deviation."""
    origin: str = ""
    """The kernel profile it comes from; empty for a closed form."""


@dataclass(frozen=True, slots=True)
class Timed:
    """How long an operator takes, on which stream, and how well that is known."""

    seconds: float
    stream: Stream
    tag: Tag
    uncertainty: float
    """Relative standard deviation."""
    origin: str = ""
    """The kernel profile it comes from; empty for a closed form."""


ASSUMED_UNCERTAINTY = 0.4
"""Assumed, of a roofline with one assumed efficiency. Roofline plus floor is off by 20 to 66 % in
the median against measured kernels (`moesim profile check`, column roofline), and an efficiency
near their average halves that; a median of 27 % is a deviation of 0.4."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a pass: the stream that is busy, what with, and how long."""

    stream: Stream
    name: str
    seconds: float
    late: bool = False
    """Whether nothing in the pass waits for it: a gradient of weights that may be delayed."""


@dataclass(frozen=True, slots=True)
class PassCost:
    """A forward or backward pass of one micro-batch through one chunk of layers."""

    parts: tuple[Part, ...]
    seconds: float
    layers: int
    host_s: float = 0.0
    """What the host needs to launch all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """How long everything takes that a stage does; one entry per chunk where there are chunks."""

    forward: tuple[PassCost, ...]
    backward: tuple[PassCost, ...]
    send_s: float
    """Activations to the next stage, and their gradients to the one before."""
    reduce_s: float
    """Gradient reduction over the data-parallel ranks."""
    gather_s: float
    """Gathering of the updated weights."""
    update_s: float
    """Optimizer update."""
    joint: tuple[tuple[PassCost, ...], ...] = ()
    """joint[f][b]: the forward pass of chunk f and the backward pass of chunk b, of two
    micro-batches, as one; empty where no schedule runs them so."""
    inputs: tuple[PassCost, ...] = ()
    """The backward pass without the gradients of weights, where a schedule runs them apart."""
    weights: tuple[PassCost, ...] = ()
    """The gradients of weights alone."""
    embedding_s: float = 0.0
    """Summing the gradients of an embedding that the first and the last stage both hold."""


def pass_cost(parts: list[Part], layers: int, host_s: float = 0.0) -> PassCost:
    """Return `parts` as a pass, equal neighbours joined."""
    kinds: list[Part] = []
    seconds: list[float] = []
    for part in parts:
        if kinds and _alike(part, kinds[-1]):
            seconds[-1] += part.seconds
        elif part.seconds > 0:
            kinds.append(part)
            seconds.append(part.seconds)
    joined = tuple(
        part if part.seconds == total else Part(part.stream, part.name, total, part.late)
        for part, total in zip(kinds, seconds, strict=True)
    )
    return PassCost(joined, sum(seconds), layers, host_s)


def _alike(one: Part, other: Part) -> bool:
    return one.name == other.name and one.stream == other.stream and one.late == other.late
