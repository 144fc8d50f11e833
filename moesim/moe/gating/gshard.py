"""GShard's top-2 gating, and how often its second expert gets the token.

With Plackett-Luce choices the first expert i takes its token after X1 ~ Exp(1), the second after
X1 + Exp(1 - s_i), and weights go with 1 / X ** sharpness. Their ratio r = X1 / X2 depends on i
only: P(r < x) = c x / (1 + (c - 1) x) with c = 1 / (1 - s_i).
"""

import numpy as np
from numpy.typing import NDArray

from moesim.errors import ModelError
from moesim.moe.choices import Choices
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.scores import Array, best, logits, softmax, weigh
from moesim.moe.gating.second import chance, sent

_NODES = 48
"""Gauss-Legendre nodes on each side of the kink of a policy; errors stay below 1e-9."""


def gshard_top2(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    """Return the best expert, and the second where the policy of the gate sends the token.

    Rejected seconds are -1. GShard's slot counter still advances for them: where that counts, take
    `top2` (all seconds) and `second.sent` apart. fairseq and mesh-tensorflow free the slot.

    Sources: GShard (arXiv 2006.16668), algorithm 1; the policies in `second`.
    """
    wanted = top2(gate, shares, tokens, generator)
    return without_second(wanted, sent(gate, wanted.weights[:, 1], generator))


def top2(gate: Gate, shares: Array, tokens: int, generator: np.random.Generator) -> Choices:
    """Return both experts of each token, before any policy may reject the second."""
    found = logits(gate, shares, tokens, generator)
    if gate.second_policy == "sampling":
        first = best(found, 1)
        noisy = found - np.log(np.maximum(generator.standard_exponential(found.shape), 1e-300))
        np.put_along_axis(noisy, first, -np.inf, axis=1)
        experts = np.concatenate([first, best(noisy, 1)], axis=1)
    else:
        experts = best(found, 2)
    return weigh(experts, softmax(found), normalise=gate.normalise)


def without_second(wanted: Choices, kept: NDArray[np.bool_]) -> Choices:
    """Return the choices with the second expert only where `kept`."""
    experts, weights = wanted.experts.copy(), wanted.weights.copy()
    experts[~kept, 1], weights[~kept, 1] = -1, 0.0
    return Choices(experts, weights)


def second_sent(gate: Gate, shares: Array) -> Array:
    """Return P(the second expert gets the token | the first is e), for normalised weights.

    The mean of chance(g2) over r, with g2 = r^a / (1 + r^a) and a the sharpness. For
    random_gshard and a = 1 it is 2/c (1/(a-1) - ln a / (a-1)^2) with a = 2/c: 2 (1 - ln 2) = 0.614
    for many equal experts.
    """
    if gate.second_policy in ("all", "sampling"):
        return np.ones_like(shares)
    if gate.second_policy == "none":
        return np.zeros_like(shares)
    if not gate.normalise:
        raise ModelError(
            "the second expert's chance has no closed form where its weight is not normalised over"
            " the two: draw tokens instead"
        )
    c = 1.0 / np.maximum(1.0 - shares / shares.sum(), 1e-300)[:, np.newaxis]
    u, weight = _nodes(_kink(gate, c))
    ratio = (u / (c - (c - 1.0) * u)) ** gate.sharpness
    return np.asarray((weight * chance(gate, ratio / (1.0 + ratio))).sum(axis=1))


def gshard_k_eff(gate: Gate, shares: Array) -> float:
    """Return the experts per token: 1 + E[chance(g2)] = 1 + sum_e s_e P(second sent | first e).

    For random_gshard: 1 + E[min(1, 2 g2)], between 1 (confident) and 2 (g2 = 1/2).
    """
    return 1.0 + float((shares / shares.sum()) @ second_sent(gate, shares))


def gshard_load(gate: Gate, shares: Array) -> Array:
    """Return the expected assignments of each expert per token.

    s_e + sum_i s_i P(sent | i) s_e / (1 - s_i), i another expert: who is second does not depend on
    how late. With `sampling` the second is drawn in proportion to the token's own probabilities,
    for which there is no closed form but that of equal shares, 2 / E.
    """
    share = shares / shares.sum()
    if gate.second_policy == "sampling" and float(np.ptp(share)) > 1e-12:
        raise ModelError("policy sampling has a closed form for equal shares only: draw tokens")
    passed_on = share * second_sent(gate, shares) / np.maximum(1.0 - share, 1e-300)
    return np.asarray(share + share * (passed_on.sum() - passed_on))


def _kink(gate: Gate, c: Array) -> Array:
    """Return P(r < x) for the ratio x at which the policy's chance jumps or stops to rise."""
    at = min(gate.threshold, 0.5) if gate.second_policy != "random_gshard" else 0.5
    ratio = (at / (1.0 - at)) ** (1.0 / gate.sharpness)
    return np.asarray(c * ratio / (1.0 + (c - 1.0) * ratio))


def _nodes(kink: Array) -> tuple[Array, Array]:
    """Return Gauss-Legendre nodes and weights on [0, kink] and [kink, 1], one row each."""
    x, weight = np.polynomial.legendre.leggauss(_NODES)
    unit = 0.5 * (x + 1.0)
    nodes = np.concatenate([kink * unit, kink + (1.0 - kink) * unit], axis=1)
    return nodes, 0.5 * np.concatenate([kink * weight, (1.0 - kink) * weight], axis=1)
