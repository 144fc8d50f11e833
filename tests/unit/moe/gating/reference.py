"""The rules again, one token at a time in plain Python, from scores that a test draws itself."""

from math import exp, log

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Token = dict[int, float]
"""Expert to weight, first choice first."""


def draw_logits(
    shares: Array, tokens: int, generator: np.random.Generator, sharpness: float = 1.0
) -> list[list[float]]:
    """Draw the logits that the samplers draw: sharpness (log(E s) - log X), X exponential."""
    waits = generator.standard_exponential((tokens, len(shares)))
    size = len(shares)
    return [
        [
            sharpness * (log(size * share) - log(wait))
            for share, wait in zip(shares, row, strict=True)
        ]
        for row in waits
    ]


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    powers = [exp(value - top) for value in row]
    return [power / sum(powers) for power in powers]


def ranking(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda expert: -row[expert])


def top_k(row: list[float], k: int, *, normalise: bool) -> Token:
    probability, chosen = softmax(row), ranking(row)[:k]
    total = sum(probability[expert] for expert in chosen) if normalise else 1.0
    return {expert: probability[expert] / total for expert in chosen}


def second_is_sent(policy: str, weight: float, threshold: float, coin: float) -> bool:
    """The policies as GShard, mesh-tensorflow and fairseq state them."""
    if policy == "none":
        return False
    if policy == "threshold":
        return weight > threshold
    if policy == "random_gshard":
        return 2 * weight > coin
    if policy == "random_mtf":
        return coin < weight / threshold
    return True


def in_groups(scores: list[float], groups: int, keep: int, k: int, best: int) -> list[int]:
    """Return the k best experts of the `keep` groups with the largest sum of `best` scores."""
    size = len(scores) // groups
    worth = [
        sum(sorted(scores[g * size : (g + 1) * size], reverse=True)[:best]) for g in range(groups)
    ]
    kept = set(ranking(worth)[:keep])
    return [expert for expert in ranking(scores) if expert // size in kept][:k]


def as_tokens(experts: NDArray[np.int64], weights: Array) -> list[Token]:
    """Return choices as one dictionary per token."""
    return [
        {int(e): float(w) for e, w in zip(row, weight, strict=True) if e >= 0}
        for row, weight in zip(experts, weights, strict=True)
    ]
