"""How the spread of expert counts shrinks with the batch, and how alike neighbouring tokens are.

CV^2(n) = CVinf^2 + phi E (1 - k/E) / (n k)

for n tokens that choose k of E experts. CVinf belongs to the expert shares, phi to the tokens:
phi = 1 - CVinf^2 k / (E - k) where they choose independently of each other, more where
neighbours choose alike. A design of d = phi / phi(independent) means that n tokens scatter as
n / d independent ones do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FEWEST_TOKENS = 16
"""The batch-size law holds from here on."""

_LEAST_CONCENTRATION = 1e-3
"""Stands for 0, all tokens of a batch alike, where a design is as large as the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstLaw:
    """The two constants of the batch-size law."""

    cv: float
    """CV of the expert shares: what is left of the spread in an endless batch."""
    phi: float
    """Burst factor."""
    source: str = ""


_TABLE = "DeepSeek-V2-Lite, four ESFT tasks x 26 layers, deepseek-ai/ESFT@579a7711; n = 16..8192"

BURSTS: dict[str, BurstLaw] = {
    "one_task_in_order": BurstLaw(cv=0.831, phi=1.71, source=f"{_TABLE}; within 2.6 %"),
    "one_task_shuffled": BurstLaw(cv=0.826, phi=0.96, source=f"{_TABLE}; within 2.6 %"),
    "four_task_mix": BurstLaw(cv=0.511, phi=0.90, source=f"{_TABLE}; within 2.6 %"),
}
"""Fits to real routing: prefill in order, a decode batch of one task, and of four tasks."""


def counting_noise(tokens: int, experts: int, top_k: int) -> float:
    """Return E (1 - k/E) / (n k), the CV^2 of the counts of n uniform independent tokens."""
    return (experts - top_k) / (tokens * top_k)


def cv_squared(law: BurstLaw, tokens: int, experts: int, top_k: int) -> float:
    """Return CV^2(n) = CVinf^2 + phi E (1 - k/E) / (n k)."""
    return law.cv**2 + law.phi * counting_noise(tokens, experts, top_k)


def independent_phi(cv: Array, experts: int, top_k: int) -> Array:
    """Return phi of tokens that choose independently: 1 - CVinf^2 k / (E - k).

    The counts have the variance n p (1 - p), and the sum of p^2 over experts is
    k^2 / E (1 + CVinf^2).
    """
    if top_k >= experts:
        return np.ones_like(cv)
    return np.maximum(1e-9, 1 - cv**2 * (top_k / (experts - top_k)))


def design(phi: Array | float, inclusion: Array) -> Array:
    """Return how many tokens count as one independent token, per layer: phi / phi(independent).

    Never below 1: tokens that repel each other are drawn as independent ones.
    """
    top_k = round(float(inclusion.sum(axis=-1).max()))
    cv = inclusion.std(axis=-1) / inclusion.mean(axis=-1)
    return np.asarray(np.maximum(1.0, phi / independent_phi(cv, inclusion.shape[-1], top_k)))


def concentration(tokens: int, design: float) -> float:
    """Return A so that a Beta-Binomial(n, A p, A (1 - p)) has the variance n p (1 - p) design.

    1 + (n - 1) / (A + 1) = design, so A = (n - design) / (design - 1); infinite where design is 1.
    The law was fitted from 16 tokens on. Below, two tokens are as alike as they are among 16: were
    the design kept, a batch of two would be one token twice.
    """
    if design <= 1.0 + 1e-9:
        return np.inf
    return max(_LEAST_CONCENTRATION, (max(tokens, FEWEST_TOKENS) - design) / (design - 1))


def fit_phi(tokens: Sequence[int], cv_squares: Array, cv: Array, noise: Array) -> Array:
    """Return phi per layer by least squares of the relative error of CV^2, CVinf being known.

    `cv_squares` is [batch sizes, layers], `cv` CVinf per layer, `noise` E (1 - k/E) / (n k) per
    batch size.
    """
    if len(tokens) != len(cv_squares):
        raise ValueError("one row of CV^2 for each batch size")
    weight = noise[:, None] / np.maximum(1e-12, cv_squares) ** 2
    above = (weight * (cv_squares - cv[None, :] ** 2)).sum(axis=0)
    return np.asarray(np.maximum(0.0, above / (weight * noise[:, None]).sum(axis=0)))


def fit_burst(tokens: Sequence[int], cvs: Sequence[float], experts: int, top_k: int) -> BurstLaw:
    """Return both constants of the law by least squares of the relative error of CV^2."""
    square = np.asarray(cvs, dtype=np.float64) ** 2
    noise = np.array([counting_noise(n, experts, top_k) for n in tokens])
    columns = np.stack([np.ones_like(noise), noise], axis=1) / square[:, None]
    (left, phi), *_ = np.linalg.lstsq(columns, np.ones_like(noise), rcond=None)
    return BurstLaw(cv=float(max(0.0, left)) ** 0.5, phi=float(phi))
