"""What rounding up to whole blocks adds to the rows of the experts: as drawn, and expected."""

from dataclasses import dataclass

from moesim.moe import blocks, drops
from moesim.moe.assignment import Router
from moesim.moe.expected_drops import is_uniform
from moesim.moe.layer_consequences import LayerConsequences


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPadding:
    """Rows of padding over rows with a token in one layer."""

    block_rows: int
    drawn_fraction: float
    expected_fraction: float | None
    """For uniform and Dirichlet loads; None for others, under a capacity and with replicas."""
    half_block_fraction: float
    """What half a block per expert would be, E block / (2 k T)."""


def block_padding(router: Router, placed: LayerConsequences) -> BlockPadding | None:
    """Return the padding of a layer; None where rows are not rounded up to blocks."""
    block = router.block_rows
    if block == 1:
        return None
    size = (router.tokens, router.experts, router.top_k, block)
    return BlockPadding(
        block_rows=block,
        drawn_fraction=placed.padded_rows / placed.computed if placed.computed else 0.0,
        expected_fraction=None if placed.replica_memory_fraction else _expected(router, size),
        half_block_fraction=blocks.half_block_overhead(*size),
    )


def _expected(router: Router, size: tuple[int, int, int, int]) -> float | None:
    if router.capacity is not None:
        return None
    if is_uniform(router):
        return blocks.uniform_overhead(*size)
    plain = router.gate is None and not router.shares and router.phi is None
    if router.law.law == "dirichlet" and plain:
        alike = drops.concentration_for(router.experts, router.law.cv)
        return blocks.dirichlet_overhead(*size, concentration=alike)
    return None
