"""Block padding: what a dropless expert layer computes beyond its rows.

A grouped GEMM works in blocks, so each expert's rows are padded to a multiple of the block.
Source: MegaBlocks, section 5.1.3, arXiv 2211.15841: blocks of 128 rows.
"""

import numpy as np
from numpy.typing import NDArray

from moesim.moe.drops import beta_parameters, dirichlet_cv
from moesim.moe.load_pmf import Pmf, beta_binomial, binomial

BLOCK = 128
"""Rows of a block in MegaBlocks."""


def padded_rows(counts: NDArray[np.int64], block: int = BLOCK) -> NDArray[np.int64]:
    """Return the rows of each expert with padding; an expert without rows has no block."""
    return -(-counts // block) * block


def half_block_overhead(tokens: int, experts: int, top_k: int, block: int = BLOCK) -> float:
    """Return E block / (2 k T): every expert wastes half a block.

    It holds where loads are spread over more than a block. Loads close to each other waste what
    the next multiple is away: 96 rows of every expert in blocks of 128 a third, not two thirds.
    """
    return experts * block / (2 * top_k * tokens)


def uniform_overhead(tokens: int, experts: int, top_k: int, block: int = BLOCK) -> float:
    """Return the expected padding over the rows when tokens choose uniformly, exactly.

    E / (k T) * E[block * ceil(n / block) - n], n ~ Binomial(T, k / E).
    """
    return _overhead(binomial(tokens, top_k / experts), experts / (top_k * tokens), block)


def dirichlet_overhead(
    tokens: int, experts: int, top_k: int, block: int = BLOCK, *, concentration: float
) -> float:
    """Return the expected padding over the rows when expert shares are Dirichlet.

    Loads are beta-binomial: exact for one choice, as in drops.dirichlet an approximation for more.
    """
    if top_k >= experts:
        return uniform_overhead(tokens, experts, top_k, block)
    alpha, beta = beta_parameters(top_k / experts, dirichlet_cv(experts, concentration))
    return _overhead(beta_binomial(tokens, alpha, beta), experts / (top_k * tokens), block)


def _overhead(load: Pmf, scale: float, block: int) -> float:
    rows = load.loads()
    return float(scale * (load.p @ (np.ceil(rows / block) * block - rows)))
