"""What lies in the memory of the fullest device of a replica, and whether the requests fit."""

from dataclasses import dataclass

from moesim.cost.serving.memory import cache_bytes, weights
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

    @property
    def fits(self) -> bool:
        """Whether weights lie in memory with room beside them for the longest request."""
        return self.missing_bytes <= 0


def device_memory(run: Serving, longest_tokens: int) -> DeviceMemory:
    """Return the memory of a run whose longest request has so many tokens."""
    on, rules = run.deployment, run.rules
    held = weights(on)
    per_token = cache_bytes(on.architecture, on)
    cache_tokens = rules.blocks * rules.block_tokens
    blocks = -(-longest_tokens // rules.block_tokens)
    parts = {
        "attention weights": held.attention,
        "dense and shared weights": held.dense,
        "expert weights": held.experts,
        "embeddings and head": held.embeddings,
        "reserved": on.software.reserved_memory_bytes,
        "cache": cache_tokens * per_token,
    }
    missing = max(0, blocks - rules.blocks) * rules.block_tokens * per_token
    if missing and not rules.blocks:
        fraction = run.scenario.serving.engine.memory_fraction or run.preset.memory_fraction
        outside = (1 - fraction) * on.device.memory_capacity_bytes
        taken = held.total + on.software.reserved_memory_bytes + outside
        missing += max(0.0, taken - on.device.memory_capacity_bytes)
    return DeviceMemory(
        parts_bytes=parts, cache_tokens=cache_tokens, missing_bytes=missing,
        capacity_bytes=on.device.memory_capacity_bytes, longest_tokens=longest_tokens,
    )  # fmt: skip
