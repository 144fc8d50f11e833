"""The streams of a stage while a pass runs: what each is busy with, and when."""

from collections.abc import Iterator
from dataclasses import dataclass

from moesim.cost.exchange_overlap import EXCHANGES, streams_of_pair
from moesim.cost.times import Part, PassCost
from moesim.cost.two_streams import Interference
from moesim.sim.training.schedules import Action

STREAMS = (
    "passes", "compute", "expert exchange", "scale-up", "scale-out", "host", "send activations",
    "receive activations", "send gradients", "receive gradients", "data-parallel",
    "data",
)  # fmt: skip
"""The tracks of a stage from top to bottom. Dispatch and combine have one of their own; other
transfers within a pass are told apart by the network they use."""

DIRECTIONS = {
    "F": "forward", "B": "backward", "I": "backward, inputs", "W": "backward, weights",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Piece:
    """What a stream of a stage does for a while."""

    stage: int
    stream: str
    name: str
    start_s: float
    duration_s: float
    actions: tuple[Action, ...] = ()
    """The pass it belongs to, or both of a pair."""
    layer: int | None = None


@dataclass(slots=True)
class Labels:
    """Names the parts of one pass; its exchanges by the layer, in turn."""

    stage: int
    action: Action
    work: PassCost
    layers: tuple[int, ...]
    """The layers with experts of its chunk, in the order of the network."""
    met: int = 0

    def piece(self, part: Part, start_s: float, duration_s: float) -> Piece:
        """Return `part` as a piece."""
        if part.name not in EXCHANGES:
            name = f"{self.action} {part.name}"
            return Piece(self.stage, part.stream, name, start_s, duration_s, (self.action,))
        layer = self._layer()
        name = f"{self.action} {part.name}" + (f" layer {layer}" if layer is not None else "")
        return Piece(
            self.stage, "expert exchange", name, start_s, duration_s, (self.action,), layer
        )

    def _layer(self) -> int | None:
        """Return the layer of the next exchange; None where layers differ in their exchanges."""
        number, self.met = self.met, self.met + 1
        exchanges = sum(part.name in EXCHANGES for part in self.work.parts)
        if not self.layers or exchanges % len(self.layers):
            return None
        place = number // (exchanges // len(self.layers))
        return self.layers[place if self.action.kind == "F" else -1 - place]


def one_pass(labels: Labels, start_s: float) -> Iterator[Piece]:
    """Yield the parts of a pass that runs alone, one after the other."""
    for part in labels.work.parts:
        yield labels.piece(part, start_s, part.seconds)
        start_s += part.seconds


def pair(forward: Labels, backward: Labels, start_s: float, cost: Interference) -> list[Piece]:
    """Return the parts of two passes beside each other, as the streams of the device ran them."""
    return [
        (forward if shown.is_forward else backward).piece(
            shown.part, start_s + shown.start_s, shown.end_s - shown.start_s
        )
        for shown in streams_of_pair(forward.work, backward.work, cost)
    ]
