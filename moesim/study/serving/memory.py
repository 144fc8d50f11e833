"""What lies in the memory of the fullest device of a replica, and whether the requests fit."""

from dataclasses import dataclass

from moesim.cost.serving.capacity import Memory
from moesim.study.serving.pools import PoolRun
from moesim.study.serving.resolve import Serving


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Bytes on the fullest device."""

    parts_bytes: dict[str, float]
    """What is held, by what it is; the cache as large as the engine makes it."""
    cache_tokens: int
    """Tokens that the cache of a replica has room for."""
    capacity_bytes: float
    longest_tokens: int
    """Prompt and output of the longest request."""
    missing_bytes: float
    """What one more device memory would need to have for the longest request; 0 where it fits."""
    pool: str = "all"
    """The pool of replicas that it is of."""

    @property
    def fits(self) -> bool:
        """Whether weights lie in memory with room beside them for the longest request."""
        return self.missing_bytes <= 0


def device_memory(run: Serving, longest_tokens: int) -> DeviceMemory:
    """Return the memory of a run whose longest request has so many tokens.

    Of several pools, of the one that lacks the most, else of the one with the smallest cache.
    """
    found = [pool_memory(pool, longest_tokens) for pool in run.pools]
    return min(found, key=lambda one: (-one.missing_bytes, one.cache_tokens))


def pool_memory(pool: PoolRun, longest_tokens: int) -> DeviceMemory:
    """Return the memory of a device of one pool."""
    held, size = pool.engine.memory, pool.engine.rules.block_tokens
    lacking = max(0, -(-longest_tokens // size) - max(1, held.blocks))
    return DeviceMemory(
        parts_bytes=parts(held), cache_tokens=held.tokens, capacity_bytes=held.capacity,
        longest_tokens=longest_tokens, pool=pool.name,
        missing_bytes=held.missing + lacking * size * held.bytes_per_token,
    )  # fmt: skip


def parts(held: Memory) -> dict[str, float]:
    """Return what a device holds, by what it is."""
    found = {
        "attention weights": held.weights.attention,
        "dense and shared weights": held.weights.dense,
        "expert weights": held.weights.experts,
        "embeddings and head": held.weights.embeddings,
        "what guesses tokens": held.weights.drafts,
        "activations": held.activations,
        "communication and workspaces": held.communication,
        "cache": held.tokens * held.bytes_per_token,
        "hidden from processes": held.capacity - held.visible,
    }
    return {name: size for name, size in found.items() if size or name == "cache"}
