"""Router policies: which replica a request goes to, as pure functions of what a router may see.

A router sees how many requests each replica has not finished at the time of the arrival, what it
has sent there, and which blocks of prompts lie where; an iteration in progress counts as not
finished, and true lengths of outputs are not among what it sees (law 6).
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

RouterName = Literal[
    "round_robin", "random", "least_outstanding", "power_of_two", "session_affinity",
    "prefix_affinity", "kv_aware",
]  # fmt: skip

Ring = tuple[tuple[int, ...], tuple[int, ...]]
"""Places on a ring of 64 bit numbers in order, and whose place each is."""

POINTS = 64
"""Places on the ring of each replica (assumed; Karger et al., STOC 1997, take several)."""


@dataclass(slots=True)
class Asking:
    """A request on its way, and what the router draws for it."""

    number: int
    """Requests routed before."""
    draws: Sequence[float]
    """Two uniform draws from [0, 1)."""
    session: int
    """The conversation that it belongs to."""
    prefix: int
    """What its prompt begins with: equal numbers, equal beginnings."""
    found: Mapping[int, int] | None = None
    """Leading tokens of its prompt in the cache of each replica that takes requests; where there
    are none the replica is left out. None: the policy does not look at it."""


@dataclass(slots=True)
class Standing:
    """The replicas as a router sees them."""

    ready: Sequence[int]
    """Numbers of those that take requests, in order; at least one."""
    outstanding: Sequence[int]
    """Requests that each replica has not finished, by number."""
    ring: Ring
    """Of those that take requests."""
    load: Sequence[int] = ()
    """Tokens of prompts sent to each replica that are not done, and once more those to compute of
    prompts without a first token; counted where the policy looks at it."""


Router = Callable[[Standing, Asking], int]


def round_robin(seen: Standing, asking: Asking) -> int:
    """Return the replicas in turn."""
    return seen.ready[asking.number % len(seen.ready)]


def random(seen: Standing, asking: Asking) -> int:
    """Return any replica, all as likely."""
    return seen.ready[int(asking.draws[0] * len(seen.ready))]


def least_outstanding(seen: Standing, asking: Asking) -> int:
    """Return the replica with the fewest requests not finished, the first of equals."""
    del asking
    outstanding = seen.outstanding
    if len(seen.ready) == len(outstanding):  # all are: four times as quick
        return outstanding.index(min(outstanding))
    return min(seen.ready, key=outstanding.__getitem__)


def power_of_two(seen: Standing, asking: Asking) -> int:
    """Return the less loaded of two replicas drawn without replacement, the first drawn of equals.

    Source: Mitzenmacher, The power of two choices in randomized load balancing, IEEE TPDS 2001.
    """
    count = len(seen.ready)
    first = int(asking.draws[0] * count)
    if count == 1:
        return seen.ready[first]
    second = int(asking.draws[1] * (count - 1))
    one, other = seen.ready[first], seen.ready[second + (second >= first)]
    return one if seen.outstanding[one] <= seen.outstanding[other] else other


def session_affinity(seen: Standing, asking: Asking) -> int:
    """Return the replica whose place on the ring follows that of the conversation.

    Where a replica comes or goes, only its own conversations move (consistent hashing, Karger et
    al., STOC 1997).
    """
    return _after(seen.ring, asking.session)


def prefix_affinity(seen: Standing, asking: Asking) -> int:
    """Return the replica whose place on the ring follows that of the prompt's beginning."""
    return _after(seen.ring, asking.prefix)


def kv_aware(seen: Standing, asking: Asking) -> int:
    """Return the replica of least cost, the first of equals.

    cost = tokens to compute there, those of the prompt that are not in its cache among them,
         + tokens of the prompts there, this one among them

    Source: Dynamo's KV router, potential prefill blocks * overlap weight + potential decode blocks,
    with its default weight of 1 and without randomness; llm-d weighs a score of the prefix against
    scores of queue and cache in the same manner (both from memory, unchecked). What is the same on
    all replicas is left out.
    """
    load, found = seen.load, asking.found or {}
    best = min(seen.ready, key=load.__getitem__)
    least = (load[best] - found.get(best, 0), best)
    for number, tokens in found.items():
        least = min(least, (load[number] - tokens, number))
    return least[1]


ROUTERS: dict[RouterName, Router] = {
    "round_robin": round_robin,
    "random": random,
    "least_outstanding": least_outstanding,
    "power_of_two": power_of_two,
    "session_affinity": session_affinity,
    "prefix_affinity": prefix_affinity,
    "kv_aware": kv_aware,
}
"""The policies by name."""


def ring(ready: Sequence[int]) -> Ring:
    """Return the ring of these replicas."""
    places = sorted((_hashed(f"{number}/{point}"), number) for number in ready
                    for point in range(POINTS))  # fmt: skip
    return tuple(place for place, _ in places), tuple(number for _, number in places)


def _after(on: Ring, key: int) -> int:
    places, owners = on
    return owners[bisect_right(places, _hashed(str(key))) % len(owners)]


def _hashed(text: str) -> int:
    return int(blake2b(text.encode(), digest_size=8).hexdigest(), 16)
