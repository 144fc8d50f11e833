"""The streams of a stage while a pass runs: what each is busy with, and when."""

from collections.abc import Iterator
from dataclasses import dataclass

from moesim.cost.exchange_overlap import EXCHANGES, Interference, Turn, beside_s, turns
from moesim.cost.times import Part, PassCost
from moesim.sim.training.schedules import Action

STREAMS = (
    "passes", "compute", "expert exchange", "scale-up", "scale-out", "host", "send activations",
    "receive activations", "send gradients", "receive gradients", "data-parallel",
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
    """Return the parts of two passes beside each other, each exchange beside the other's work."""
    found: list[Piece] = []
    for turn in turns(forward.work, backward.work):
        own, other = (forward, backward) if turn.is_forward else (backward, forward)
        work, start_s = _beside(turn, own, start_s, cost)
        found += work
        if turn.exchange is not None:
            began_s, ended_s = _exchange(turn, work, start_s, cost)
            found.append(other.piece(turn.exchange, began_s, ended_s - began_s))
            start_s = max(start_s, ended_s)
    return found


def _beside(
    turn: Turn, own: Labels, start_s: float, cost: Interference
) -> tuple[list[Piece], float]:
    """Return the work of a turn, its compute slower while the exchange runs, and its end."""
    left_s, found = _together_s(turn, cost), []
    for part in turn.work:
        seconds = part.seconds
        if part.stream == "compute":
            slow_s = min(left_s, seconds / (1 - cost.taken))
            left_s -= slow_s
            seconds += slow_s * cost.taken
        found.append(own.piece(part, start_s, seconds))
        start_s += seconds
    return found, start_s


def _together_s(turn: Turn, cost: Interference) -> float:
    compute_s = sum(part.seconds for part in turn.work if part.stream == "compute")
    return beside_s(compute_s, turn.exchange.seconds, cost) if turn.exchange else 0.0


def _exchange(
    turn: Turn, work: list[Piece], end_s: float, cost: Interference
) -> tuple[float, float]:
    """Return when the exchange of a turn begins and ends; it stands while the work communicates."""
    assert turn.exchange is not None
    left_s = _together_s(turn, cost)
    alone_s = turn.exchange.seconds - cost.rate * left_s
    computing = [piece for piece in work if piece.stream == "compute"]
    if not left_s or not computing:
        return end_s, end_s + turn.exchange.seconds
    if alone_s > 1e-9 * turn.exchange.seconds:
        return computing[0].start_s, end_s + alone_s
    for piece in computing:
        if piece.duration_s >= left_s:
            return computing[0].start_s, piece.start_s + left_s
        left_s -= piece.duration_s
    return computing[0].start_s, end_s
