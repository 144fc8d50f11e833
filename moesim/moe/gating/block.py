"""Experts of a block in other shapes: fine-grained, shared, and a dense FFN beside them."""

from dataclasses import dataclass, replace

from moesim.errors import ModelError
from moesim.moe.traffic import fan_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The experts of one MoE block: routed, shared, and a dense residual, by their inner width."""

    experts: int
    top_k: int
    width: int
    """Inner width of one routed or shared expert."""
    shared: int = 0
    """Experts that every token uses; dense work without dispatch."""
    dense_width: int = 0
    """Inner width of a dense FFN beside the experts (Arctic, DeepSpeed's residual MoE); 0: none."""


def fine_grained(block: Block, pieces: int) -> Block:
    """Return the block with every expert split into m: m E experts of width f / m, m k choices.

    Unchanged: FLOP, parameters, rows per expert. What grows: copies per token m-fold, fan-out,
    number of GEMMs m-fold; what falls: the width of each GEMM.

    Source: DeepSeekMoE (arXiv 2401.06066).
    """
    if block.width % pieces:
        raise ModelError(f"an expert of width {block.width} does not split into {pieces} pieces")
    return replace(
        block,
        experts=block.experts * pieces,
        top_k=block.top_k * pieces,
        width=block.width // pieces,
        shared=block.shared * pieces,
    )


def isolate_shared(block: Block, shared: int) -> Block:
    """Return the block with s routed experts made shared: E - s routed, k - s choices.

    FLOP and parameters stay; dispatch carries k - s copies instead of k.

    Source: DeepSeekMoE (arXiv 2401.06066).
    """
    if shared >= block.top_k:
        raise ModelError(f"{shared} shared experts leave none of {block.top_k} choices to route")
    return replace(
        block,
        experts=block.experts - shared,
        top_k=block.top_k - shared,
        shared=block.shared + shared,
    )


def active_width(block: Block) -> int:
    """Return the inner width a token runs through, to which its FLOP are proportional."""
    return (block.top_k + block.shared) * block.width + block.dense_width


def stored_width(block: Block) -> int:
    """Return the inner width of all that is held, to which parameters are proportional."""
    return (block.experts + block.shared) * block.width + block.dense_width


def rows_per_expert(block: Block, tokens: int) -> float:
    """Return the mean rows of a routed expert, mu = k T / E."""
    return block.top_k * tokens / block.experts


def copies(block: Block, ranks: int, *, deduplicated: bool) -> float:
    """Return the copies of a token that dispatch makes: k, or the distinct ranks it reaches."""
    return fan_out(ranks, block.experts, block.top_k) if deduplicated else float(block.top_k)
