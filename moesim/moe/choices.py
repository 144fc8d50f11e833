"""Token-level routing: which experts each token wants, and what follows when they are counted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Choices:
    """Which experts each token wants: first choice first."""

    experts: NDArray[np.int64]
    """[tokens, k]; -1 where a token has no such choice."""
    weights: NDArray[np.float64]
    """[tokens, k] gate weights as the router normalises them; 0 where none."""


def split_tokens(tokens: int, ranks: int) -> Counts:
    """Return the tokens of each source rank: even, the first ranks one more where it must be."""
    each, more = divmod(tokens, ranks)
    return each + (np.arange(ranks) < more).astype(np.int64)


def counts(choices: Choices, experts: int, ranks: int) -> Counts:
    """Return counts[source rank, expert]; the tokens lie on the ranks in order, evenly."""
    tokens, k = choices.experts.shape
    rank = np.repeat(np.arange(ranks), split_tokens(tokens, ranks) * k)
    expert = choices.experts.ravel()
    wanted = expert >= 0
    cells = rank[wanted] * experts + expert[wanted]
    return np.bincount(cells, minlength=ranks * experts).reshape(ranks, experts)


def assignments_per_token(choices: Choices) -> NDArray[np.int64]:
    """Return how many experts each token goes to."""
    return np.asarray((choices.experts >= 0).sum(axis=1), dtype=np.int64)


def parts_reached(choices: Choices, experts: int, parts: int) -> NDArray[np.int64]:
    """Return the distinct parts (ranks, nodes) each token reaches; experts lie on them in order."""
    reached = np.zeros((len(choices.experts), parts), dtype=bool)
    token, slot = np.nonzero(choices.experts >= 0)
    reached[token, choices.experts[token, slot] * parts // experts] = True
    return np.asarray(reached.sum(axis=1), dtype=np.int64)
