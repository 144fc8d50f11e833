"""How likely a token is dropped by where it stands in its routing group, in closed form.

With first come, first served the last tokens of a group lose most; policies by weight or at random
drop everywhere alike. The mean over positions is the dropped share whatever the policy.
"""

from math import lgamma, log, log1p

import numpy as np
from numpy.typing import NDArray

from moesim.moe import drops
from moesim.moe.load_pmf import Pmf, at_least, binomial

Array = NDArray[np.float64]


def uniform(tokens: int, experts: int, top_k: int, slots: int) -> Array:
    """Return the drop probability at each position, uniform choices, all ranks in one queue.

    A token at position p is dropped if its expert has C of the p tokens before: P(Bin(p, k/E) >=
    C). That is P(the C-th of them is at m < p), where m is negative binomial,
    f(m + 1) / f(m) = (m + 1) / (m - C + 2) * (1 - q).
    """
    q = top_k / experts
    if slots == 0 or slots >= tokens or q >= 1:
        return np.where(np.arange(tokens) >= slots, 1.0, 0.0)
    anchor = max(slots - 1, min(tokens, int((slots - 1) / q)))
    log_first = _log_choose(anchor, slots - 1) + slots * log(q) + (anchor - slots + 1) * log1p(-q)
    m = np.arange(slots - 1, max(tokens, anchor + 1), dtype=np.float64)
    ratios = np.log((m + 1) / (m - slots + 2) * (1 - q))
    return _from_filling(log_first, ratios, anchor, (tokens, slots))


def dirichlet(tokens: int, experts: int, slots: int, concentration: float) -> Array:
    """Return the drop probability at each position, one choice, Dirichlet shares.

    The share of the expert that a token chose is drawn in proportion to its size: Beta(a + 1,
    (E - 1) a). The C-th token before is at m with the beta negative binomial law,
    f(m + 1) / f(m) = (m + 1) / (m - C + 2) * (m - C + 1 + b) / (m + a' + b), a' = a + 1.
    """
    alpha, beta = concentration + 1, (experts - 1) * concentration
    if slots == 0 or slots >= tokens or experts == 1:
        return np.where(np.arange(tokens) >= slots, 1.0, 0.0)
    anchor = max(slots - 1, min(tokens, int((slots - 1) * (alpha + beta) / alpha)))
    log_first = _log_choose(anchor, slots - 1) - _log_beta(alpha, beta)
    log_first += _log_beta(alpha + slots, beta + anchor - slots + 1)
    m = np.arange(slots - 1, max(tokens, anchor + 1), dtype=np.float64)
    failed = (m - slots + 1 + beta) / (m + alpha + beta + 1)
    ratios = np.log((m + 1) / (m - slots + 2) * failed)
    return _from_filling(log_first, ratios, anchor, (tokens, slots))


def uniform_by_choice(
    tokens: int, experts: int, top_k: int, slots: int, *, positions: NDArray[np.int64]
) -> Array:
    """Return the drop probability [position, choice] where first choices are placed first.

    Before choice j (from 0) of the token at p its expert got Bin(p, (j + 1)/E) from the tokens
    before and Bin(T - 1 - p, j/E) from those behind, whose earlier choices are placed already; the
    token's own other choices are other experts.
    """
    found = np.empty((len(positions), top_k))
    for row, place in enumerate(positions.tolist()):
        for j in range(top_k):
            before = binomial(place, (j + 1) / experts)
            behind = binomial(tokens - 1 - place, j / experts)
            both = Pmf(before.first + behind.first, np.convolve(before.p, behind.p))
            found[row, j] = at_least(both, slots)
    return found


def flat(tokens: int, experts: int, top_k: int, slots: int) -> Array:
    """Return the drop probability at each position for the policies probs and random.

    All positions are alike, so it is the dropped share.
    """
    return np.full(tokens, drops.uniform(tokens, experts, top_k, slots))


def _from_filling(log_first: float, log_ratios: Array, anchor: int, size: tuple[int, int]) -> Array:
    """Sum the law of the position at which an expert becomes full; size: tokens, slots."""
    tokens, slots = size
    right, left = log_ratios[anchor - slots + 1 :], log_ratios[: anchor - slots + 1][::-1]
    around = np.concatenate((-np.cumsum(left)[::-1], [0.0], np.cumsum(right)))
    full = np.cumsum(np.exp(log_first + around))
    found = np.zeros(tokens)
    found[slots:] = full[: tokens - slots]
    return np.minimum(found, 1.0)


def _log_choose(n: float, k: float) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
