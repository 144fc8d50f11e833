"""Batching policies: which prompts, and how much of them, the next iteration computes."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from moesim.sim.serving.cache import Blocks
from moesim.sim.serving.prefix import PrefixCache
from moesim.sim.serving.rules import EngineRules

Chunks = list[tuple[int, int, int]]
"""Requests, how many tokens of their prompts, and after how many."""


class Batch(Protocol):
    """What a policy may look at; true lengths of outputs are not among it."""

    @property
    def rules(self) -> EngineRules:
        """The limits of the engine."""
        ...

    @property
    def blocks(self) -> Blocks:
        """The cache."""
        ...

    @property
    def growth(self) -> int:
        """Blocks that the next decode step takes."""
        ...

    @property
    def prefix(self) -> PrefixCache | None:
        """What is kept of earlier prompts."""
        ...

    @property
    def queue(self) -> deque[int]:
        """Requests that wait, in order."""
        ...

    @property
    def computed(self) -> dict[int, int]:
        """Tokens computed of prompts under way."""
        ...

    @property
    def running(self) -> Mapping[int, object]:
        """Requests that decode."""
        ...

    @property
    def put_out(self) -> Mapping[int, int]:
        """Tokens that evicted requests had put out."""
        ...

    def context(self, request: int) -> int:
        """Return the tokens to compute before a request can decode."""
        ...

    def most_tokens(self, request: int) -> int:
        """Return the tokens that a request may come to hold."""
        ...


def mixed(batch: Batch) -> Chunks:
    """Return chunks that fill what decoding leaves of the token budget (vLLM v1 scheduler)."""
    return _fill(batch, batch.rules.token_budget - _decoding(batch), whole=False)


def prefill_first(batch: Batch) -> Chunks:
    """Return chunks that fill the token budget, without decoding beside them (SGLang)."""
    return _fill(batch, batch.rules.token_budget, whole=False)


def whole_prompts(batch: Batch) -> Chunks:
    """Return prompts that fit whole beside decoding (TensorRT-LLM without chunked context)."""
    return _fill(batch, batch.rules.token_budget - _decoding(batch), whole=True)


def static(batch: Batch) -> Chunks:
    """Return whole prompts for all places once nobody decodes any more."""
    return [] if batch.running else _fill(batch, 1 << 60, whole=True)


BATCHING: dict[str, Callable[[Batch], Chunks]] = {
    "mixed": mixed,
    "prefill_first": prefill_first,
    "whole_prompts": whole_prompts,
    "static": static,
}
"""The policies by name."""


def _fill(batch: Batch, budget: int, *, whole: bool) -> Chunks:
    """Return the prompts under way, then those of the queue in order, as far as all limits go."""
    chunks: Chunks = []
    if budget <= 0 or not (batch.computed or batch.queue):
        return chunks
    blocks = batch.blocks
    free = blocks.total - blocks.used - batch.growth
    for request, past in batch.computed.items():
        tokens = min(batch.context(request) - past, budget, _room(batch, past, free))
        if tokens > 0:
            chunks.append((request, tokens, past))
            budget -= tokens
            free -= _blocks(batch, past, tokens)
    if not batch.queue:
        return chunks
    places = batch.rules.max_sequences - len(batch.running) - len(batch.computed)
    prefix, plain = batch.prefix, batch.prefix is None and not batch.rules.reserve_output
    for request in batch.queue:
        if places <= 0:
            break
        context = batch.context(request)
        past = 0 if prefix is None else prefix.found(request, context)
        left = context - past
        tokens = min(left, budget)
        if tokens <= 0:
            break
        if whole and tokens < left:
            prompt = context - batch.put_out.get(request, 0)
            if chunks or not prompt <= batch.rules.token_budget < context:
                break
            tokens = left  # grown by what was put out before it was evicted
        held = -(-tokens // blocks.tokens) if plain else _first_blocks(batch, request, past, tokens)
        if held > free:
            break
        chunks.append((request, tokens, past))
        budget -= tokens
        free -= held
        places -= 1
    return chunks


def _decoding(batch: Batch) -> int:
    """Return the tokens that decoding computes in an iteration."""
    return len(batch.running) * batch.rules.checked_tokens


def _room(batch: Batch, past: int, free: int) -> int:
    """Return the tokens that the free blocks hold, after `past` of the same request."""
    if batch.rules.reserve_output:
        return 1 << 60
    size = batch.blocks.tokens
    return free * size + -past % size


def _first_blocks(batch: Batch, request: int, past: int, tokens: int) -> int:
    """Return the free blocks that a request takes with its first chunk."""
    blocks = batch.blocks
    most = batch.most_tokens(request) if batch.rules.reserve_output else past + tokens
    if batch.prefix is None or not past:
        return blocks.needed(most)
    return blocks.needed(most) - blocks.needed(past) + batch.prefix.asleep(request, past)


def _blocks(batch: Batch, past: int, tokens: int) -> int:
    """Return the free blocks that another chunk of a request takes."""
    if batch.rules.reserve_output:
        return 0
    return batch.blocks.needed(past + tokens) - batch.blocks.needed(past)
