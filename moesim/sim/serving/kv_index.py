"""What a router knows of replicas' caches and loads: which hold a prompt's beginning, and how much
each has to do.

Blocks are noted when a replica gives them ids, and struck out at its next change of batch after
their places were taken, as engines tell routers by events per iteration (Dynamo's KV events, the
precise prefix scorer of llm-d; from memory, unchecked). Loads are counted by the router itself,
from what it sent and what has put out its first and its last token; lengths of outputs are not
among it (law 6).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from moesim.sim.serving.prefix import PrefixCache
from moesim.sim.serving.replica import Replica
from moesim.sim.serving.requests import NEVER, Requests


@dataclass(slots=True, eq=False)
class KvIndex:
    """Blocks and loads of the replicas of one pool."""

    asked: Requests
    load: list[int]
    """Of each replica: tokens of prompts sent there that are not done, and once more those to
    compute of prompts without a first token."""
    caches: list[list[PrefixCache]] = field(default_factory=list)
    """Of each replica, those of its ranks; empty where nothing is kept."""
    where: dict[int, int] = field(default_factory=dict)
    """The caches that hold each id, a bit each."""
    begun: list[int] = field(default_factory=list)
    """Requests that have put out a first token, as engines note them."""
    under_way: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """The replica of each request that is not done, its prompt, and what is to compute of it."""
    ready: int = 0
    """Bits of the caches of replicas that take requests."""
    seen: dict[int, int] = field(default_factory=dict)
    """What was found of the last request that was looked up, by replica."""

    def watch(self, number: int, ranks: Sequence[Replica]) -> None:
        """Follow a replica that is new or comes anew: nothing in its cache, nothing to do."""
        self.caches += [[] for _ in range(number + 1 - len(self.caches))]
        for cache in self.caches[number]:
            cache.gone += cache.holders
            cache.holders.clear()
            cache.tell()
            cache.where = None
        self.load[number] = 0
        for request in [one for one, sent in self.under_way.items() if sent[0] == number]:
            del self.under_way[request]
        self.caches[number] = []
        for place, rank in enumerate(ranks):
            rank.begun = self.begun
            if rank.prefix is not None:
                rank.prefix.where = self.where
                rank.prefix.bit = 1 << (number * len(ranks) + place)
                self.caches[number].append(rank.prefix)

    def open(self, ready: Sequence[int]) -> None:
        """Note which replicas take requests."""
        self.ready = sum(cache.bit for number in ready for cache in self.caches[number])

    def look(self, request: int, at: int) -> dict[int, int]:
        """Return the leading tokens of a request that replicas hold: the mean over their ranks.

        A replica spreads requests over its ranks by their load. Replicas without any are left out.
        """
        self._note_begun(at)
        found: dict[int, int] = {}
        self.seen = found
        caches = next((ranks for ranks in self.caches if ranks), None)
        if caches is None or not self.ready:
            return found
        one, ranks, where = caches[0], len(caches), self.where
        most = (self.asked.prompt[request] - 1) // one.block_tokens
        bits, depth = self.ready, 0
        for block in one.ids[request][:most]:
            left = bits & where.get(block, 0)
            if left != bits:
                _add(found, bits ^ left, depth, ranks)
                bits = left
                if not left:
                    break
            depth += 1
        _add(found, bits, depth, ranks)
        for number, blocks in found.items():
            found[number] = blocks * one.block_tokens // ranks
        return found

    def took(self, number: int, request: int) -> None:
        """Count a request that was sent to a replica."""
        prompt = self.asked.prompt[request]
        missing = prompt - self.seen.get(number, 0)
        self.under_way[request] = number, prompt, missing
        self.load[number] += prompt + missing

    def done(self, request: int) -> None:
        """Count a request that has left its replica."""
        sent = self.under_way.pop(request, None)
        if sent is not None:
            self.load[sent[0]] -= sent[1] + sent[2]

    def _note_begun(self, at: int) -> None:
        if not self.begun:
            return
        first, later = self.asked.first, []
        for request in self.begun:
            if not NEVER < first[request] <= at:
                later.append(request)
            elif request in self.under_way:
                number, prompt, missing = self.under_way[request]
                self.load[number] -= missing
                self.under_way[request] = number, prompt, 0
        self.begun[:] = later


def _add(found: dict[int, int], bits: int, depth: int, ranks: int) -> None:
    """Add a depth to the replicas of so many ranks whose bits these are."""
    while depth and bits:
        low = bits & -bits
        bits ^= low
        number = (low.bit_length() - 1) // ranks
        found[number] = found.get(number, 0) + depth


def new_index(asked: Requests, count: int) -> KvIndex:
    """Return the index of so many replicas."""
    return KvIndex(asked, [0] * count)
