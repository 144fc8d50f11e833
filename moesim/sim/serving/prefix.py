"""Prefixes of prompts that stay in the cache after their requests, as engines keep them.

A prompt's leading blocks have ids (hashes of everything up to their end). A block that a request
computed keeps its id while somebody holds it, and after that until its place is needed: free places
are taken in the order in which they became free, so the block used least recently goes first; of
one request the last block goes first. Source: vLLM, v1/core/block_pool.py and kv_cache_manager.py
(from memory, unchecked); SGLang's radix tree is the same law with blocks of a token. Assumed:
blocks can be found from the end of the iteration that computes them, and of equal blocks computed
at the same time the first one keeps the id.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from moesim.sim.serving.requests import Prefixes


@dataclass(slots=True)
class PrefixCache:
    """Which blocks have ids, who holds them, and in what order free ones are taken."""

    ids: Prefixes
    """Of each request, the ids of its leading blocks; not negative."""
    block_tokens: int
    """Tokens that an id stands for."""
    size: int
    """Blocks of the cache that an id stands for."""
    total: int
    """Blocks of the cache."""
    holders: dict[int, int] = field(default_factory=dict)
    """Requests that hold each known id; 0 where it is free and can be found again."""
    order: OrderedDict[int, int] = field(init=False)
    """Blocks of free places, the next to be taken first: by id, or a negative number without."""
    held: dict[int, list[int]] = field(default_factory=dict)
    """Ids that each request holds."""
    named: dict[int, int] = field(default_factory=dict)
    """How many of each request's ids are dealt with."""
    unnamed: int = -1
    """The last negative number given."""
    kept: int = 0
    """Free blocks with an id."""
    where: dict[int, int] | None = None
    """A router's notes of who holds which id, a bit per cache; None: nobody asks."""
    bit: int = 0
    """This cache's bit there."""
    gone: list[int] = field(default_factory=list)
    """Ids that were forgotten and are still in those notes."""

    def __post_init__(self) -> None:
        self.order = OrderedDict({self.unnamed: self.total})

    def found(self, request: int, context: int) -> int:
        """Return the leading tokens of a request that need no computing; one is left at least."""
        ids, holders, run = self.ids[request], self.holders, 0
        most = min(len(ids), (context - 1) // self.block_tokens)
        while run < most and ids[run] in holders:
            run += 1
        return run * self.block_tokens

    def spared(self, request: int, context: int, blocks: int) -> int:
        """Return how many of so many blocks can be taken before one that is found of a request."""
        ids = self.ids[request][: self.found(request, context) // self.block_tokens]
        sleeping = {one for one in ids if not self.holders[one]}
        if not sleeping:
            return blocks
        taken = 0
        for one, here in self.order.items():
            if one in sleeping or taken >= blocks:
                break
            taken += here
        return min(taken, blocks)

    def asleep(self, request: int, tokens: int) -> int:
        """Return the blocks among the leading `tokens` that nobody holds now."""
        ids = self.ids[request][: tokens // self.block_tokens]
        return self.size * sum(not self.holders[one] for one in ids)

    def enter(self, request: int, tokens: int) -> int:
        """Let a request hold what was found of it; return the blocks that were free till now."""
        return self._hold(request, list(self.ids[request][: tokens // self.block_tokens]))

    def _hold(self, request: int, ids: list[int]) -> int:
        """Let a request hold blocks that are there; return those that were free till now."""
        woken = 0
        for one in ids:
            if not self.holders[one]:
                woken += self.order.pop(one)
            self.holders[one] += 1
        self.kept -= woken
        self.held[request], self.named[request] = ids, len(ids)
        return woken

    def take(self, blocks: int) -> None:
        """Take so many free blocks for new tokens; ids whose places go are forgotten."""
        order = self.order
        while blocks > 0:
            one = next(iter(order))
            here = order[one]
            if one < 0 and here > blocks:
                order[one] = here - blocks
                return
            del order[one]
            if one >= 0:
                del self.holders[one]
                self.kept -= here
                if self.where is not None:
                    self.gone.append(one)
                if here > blocks:
                    rest = self._name()
                    order[rest] = here - blocks
                    order.move_to_end(rest, last=False)
            blocks -= here

    def computed(self, request: int, tokens: int) -> None:
        """Give ids to the blocks that the first `tokens` of a request have filled."""
        ids, done = self.ids[request], self.named[request]
        full = min(len(ids), tokens // self.block_tokens)
        for one in ids[done:full]:
            if one not in self.holders:
                self.holders[one] = 1
                self.held[request].append(one)
                if self.where is not None:
                    self.where[one] = self.where.get(one, 0) | self.bit
        self.named[request] = max(done, full)

    def tell(self) -> None:
        """Strike out of the router's notes what was forgotten."""
        where = self.where
        assert where is not None
        for one in self.gone:
            if one in where and one not in self.holders:
                where[one] &= ~self.bit
                if not where[one]:
                    del where[one]
        self.gone.clear()

    def hold_again(self, request: int, tokens: int, blocks: int) -> int:
        """Let a request that has just left hold its blocks again; return those that were free."""
        ids = [one for one in self.ids[request][: tokens // self.block_tokens]
               if one in self.holders]  # fmt: skip
        woken = self._hold(request, ids)
        own = blocks - self.size * len(ids)
        self._take_last(own)
        return woken + own

    def _take_last(self, blocks: int) -> None:
        """Take so many blocks without ids, those first that became free last."""
        for one in [one for one in reversed(self.order) if one < 0]:
            taken = min(blocks, self.order[one])
            self.order[one] -= taken
            blocks -= taken
            if not self.order[one]:
                del self.order[one]
            if not blocks:
                return

    def leave(self, request: int, blocks: int) -> int:
        """Let a request go that holds so many blocks; return those that are free now."""
        ids = self.held.pop(request)
        del self.named[request]
        freed = blocks - self.size * len(ids)
        if freed:
            self.free(freed)
        for one in reversed(ids):
            self.holders[one] -= 1
            if not self.holders[one]:
                self.order[one] = self.size
                self.kept += self.size
                freed += self.size
        return freed

    def free(self, blocks: int) -> None:
        """Put blocks without ids last, together with such blocks that are last already."""
        last = next(reversed(self.order), 0)
        if last < 0:
            self.order[last] += blocks
        else:
            self.order[self._name()] = blocks

    def _name(self) -> int:
        self.unnamed -= 1
        return self.unnamed


def prefix_cache(ids: Prefixes, id_tokens: int, block_tokens: int, blocks: int) -> PrefixCache:
    """Return the cache of an engine with blocks of `block_tokens`, from ids of `id_tokens` each.

    An id stands for everything up to its end, so of several in a block the last one names it.
    Raises ValueError where neither is a multiple of the other.
    """
    if id_tokens % block_tokens == 0:
        return PrefixCache(ids, id_tokens, id_tokens // block_tokens, blocks)
    each, rest = divmod(block_tokens, id_tokens)
    if rest:
        raise ValueError(
            f"ids of {id_tokens} tokens do not fit blocks of {block_tokens}: one must be a "
            "multiple of the other"
        )
    return PrefixCache(_Every(ids, each), block_tokens, 1, blocks)


@dataclass(frozen=True, slots=True)
class _Every:
    """The last of every so many ids."""

    ids: Prefixes
    each: int

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, request: int, /) -> Sequence[int]:
        return self.ids[request][self.each - 1 :: self.each]
