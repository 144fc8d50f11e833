"""Dispatch and combine that run beside compute: shared experts, or another micro-batch's pass.

While both run, the exchange goes at `rate` of its own speed and compute at 1 - `taken`, the units
that communication kernels occupy.
"""

from dataclasses import dataclass
from itertools import zip_longest

from moesim.cost.software import Software
from moesim.cost.times import Part, PassCost, pass_cost
from moesim.hardware.device import Device

EXCHANGES = ("dispatch", "combine")
EXCHANGE_UNITS = 20
"""Compute units that dispatch and combine kernels take: 20 of the 132 of an H800 (DeepSeek-V3
technical report, arXiv 2412.19437, section 3.2.2)."""
SLOWED = "slowed by exchange"


@dataclass(frozen=True, slots=True)
class Interference:
    """What communication and compute cost each other."""

    rate: float
    """Rate of an exchange beside compute, as a share of its rate alone."""
    taken: float
    """Share of the compute units that an exchange takes meanwhile."""


def interference(device: Device, software: Software) -> Interference:
    """Return what exchanges on `device` cost; with hardly any units engines of their own send."""
    units = device.compute_units or 0
    taken = EXCHANGE_UNITS / units if units > EXCHANGE_UNITS else 0.0
    return Interference(software.overlapped_fraction, taken)


def together_s(compute_s: float, exchange_s: float, cost: Interference) -> float:
    """Return how long compute takes with an exchange beside it, at least the longer of both.

    Both run for t = min(c / (1 - taken), x / rate); what is left of one goes on alone:
    t + c - (1 - taken) t + x - rate t, at most c + x, one after the other.
    """
    speed = 1 - cost.taken
    both_s = min(compute_s / speed, exchange_s / cost.rate)
    return compute_s + exchange_s - max(0.0, speed + cost.rate - 1) * both_s


def beside_shared(parts: list[Part], cost: Interference) -> list[Part]:
    """Return a layer's parts, its exchanges shorter by what its shared experts hide of them.

    Source: Megatron-LM, --moe-shared-expert-overlap.
    """
    shared_s = sum(part.seconds for part in parts if part.name == "shared experts")
    exchange_s = sum(part.seconds for part in parts if part.name in EXCHANGES)
    if not shared_s or not exchange_s:
        return parts
    left = (together_s(shared_s, exchange_s, cost) - shared_s) / exchange_s
    return [
        Part(part.stream, part.name, part.seconds * (left if part.name in EXCHANGES else 1.0))
        for part in parts
    ]


def one_after_the_other(forward: PassCost, backward: PassCost) -> PassCost:
    """Return a forward and a backward pass of two micro-batches, nothing beside anything."""
    return pass_cost([*forward.parts, *backward.parts], forward.layers + backward.layers)


def beside_each_other(forward: PassCost, backward: PassCost, cost: Interference) -> PassCost:
    """Return a forward pass with the backward pass of another micro-batch in its gaps.

    The passes take turns at their exchanges: each hides behind the other pass's stretch between
    two of its own, attention forward | combine backward, experts backward | dispatch forward,
    experts forward | dispatch backward, attention backward | combine forward; a turn ends when
    both have. Source: Megatron-LM, --overlap-moe-expert-parallel-comm,
    core/models/common/model_chunk_schedule_plan.py.
    """
    parts: list[Part] = []
    for turn in turns(forward, backward):
        parts += _turn(turn.work, turn.exchange, cost)
    return pass_cost(parts, forward.layers + backward.layers)


@dataclass(frozen=True, slots=True)
class Turn:
    """A stretch of one pass, with an exchange of the other pass beside it."""

    is_forward: bool
    """Whose work it is; the exchange is the other's."""
    work: tuple[Part, ...]
    exchange: Part | None


def turns(forward: PassCost, backward: PassCost) -> list[Turn]:
    """Return the turns that a forward and a backward pass take beside each other."""
    ahead, back = _stretches(forward), _stretches(backward)
    found = [Turn(False, back[0].work, None)]
    # forward stretch n has the exchange before backward stretch n + 1 beside it, and so on in turn
    for one, other, following in zip_longest(ahead, back[1:], ahead[1:], fillvalue=_NOTHING):
        found.append(Turn(True, one.work, other.exchange))
        found.append(Turn(False, other.work, following.exchange))
    return found


def beside_s(compute_s: float, exchange_s: float, cost: Interference) -> float:
    """Return for how long compute and an exchange run beside each other, by `together_s`."""
    speed = 1 - cost.taken
    if speed + cost.rate <= 1:
        return 0.0
    return min(compute_s / speed, exchange_s / cost.rate)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """What a pass does after an exchange until the next one."""

    exchange: Part | None
    work: tuple[Part, ...]


_NOTHING = _Stretch(None, ())


def _stretches(one: PassCost) -> list[_Stretch]:
    starts = [n for n, part in enumerate(one.parts) if part.name in EXCHANGES]
    ends = [*starts, len(one.parts)]
    found = [_Stretch(None, one.parts[: ends[0]])]
    for start, end in zip(starts, ends[1:], strict=True):
        found.append(_Stretch(one.parts[start], one.parts[start + 1 : end]))
    return found


def _turn(work: tuple[Part, ...], exchange: Part | None, cost: Interference) -> list[Part]:
    """Return `work` with `exchange` beside its compute: slowed, then what is left of the latter."""
    if exchange is None:
        return list(work)
    compute_s = sum(part.seconds for part in work if part.stream == "compute")
    total_s = together_s(compute_s, exchange.seconds, cost)
    beside_s = min(compute_s / (1 - cost.taken), exchange.seconds / cost.rate)
    slowed_s = min(total_s - compute_s, beside_s * cost.taken)
    return [
        *work,
        Part("compute", SLOWED, slowed_s),
        Part(exchange.stream, exchange.name, total_s - compute_s - slowed_s),
    ]
