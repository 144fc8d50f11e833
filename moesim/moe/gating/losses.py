"""Balancing losses as published, without their coefficients, and the statistics they act on."""

import numpy as np

from moesim.moe.choices import Choices
from moesim.moe.gating.inclusion import normal_cdf
from moesim.moe.gating.scores import Array


def importance(choices: Choices, experts: int) -> Array:
    """Return Importance_i = sum over tokens of the gate weight of expert i.

    Source: Shazeer et al. 2017 (arXiv 1701.06538).
    """
    wanted = choices.experts >= 0
    found = np.bincount(choices.experts[wanted], weights=choices.weights[wanted], minlength=experts)
    return np.asarray(found, dtype=np.float64)


def load_probability(clean: Array, noisy: Array, noise: float | Array, top_k: int) -> Array:
    """Return P(x, i): expert i is among the k best if its noise alone is drawn anew.

    P(x, i) = Phi((clean_i - kth_excluding(noisy, k, i)) / noise), kth_excluding the k-th largest
    of the others; noise is softplus((x W_noise)_i), greater than zero.

    Source: Shazeer et al. 2017.
    """
    experts = noisy.shape[-1]
    if top_k >= experts:
        return np.ones_like(clean)
    largest = np.partition(noisy, (experts - top_k - 1, experts - top_k), axis=-1)
    next_one = largest[..., experts - top_k - 1, np.newaxis]
    kth = largest[..., experts - top_k, np.newaxis]
    # without i the k-th largest is the next one, if i was among the k
    excluding = np.where(noisy >= kth, next_one, kth)
    return normal_cdf((clean - excluding) / noise)


def load(clean: Array, noisy: Array, noise: float | Array, top_k: int) -> Array:
    """Return Load_i = sum over tokens of P(x, i): a smooth count. Source: Shazeer et al. 2017."""
    return np.asarray(load_probability(clean, noisy, noise, top_k).sum(axis=0))


def cv_squared(values: Array) -> float:
    """Return CV^2 = variance / mean^2, the loss on importance and on load (Shazeer et al. 2017)."""
    mean = float(values.mean())
    return float(values.var()) / mean**2 if mean else 0.0


def hierarchical_load(upper: Array, inside: Array, tokens_inside: Array) -> Array:
    """Return Load_ij = Load_p(X)_i * Load_i(X^(i))_j / |X^(i)|, groups i and their experts j.

    Source: Shazeer et al. 2017, appendix B.
    """
    return upper[:, np.newaxis] * inside / tokens_inside[:, np.newaxis]


def balance(chosen: Array, probability: Array) -> float:
    """Return E * sum_e f_e P_e, 1 where both are equal shares.

    f_e: share of the assignments that go to e; P_e: its mean probability. Switch counts the one
    choice of a token (JMLR 2022), mesh-tensorflow the first, DeepSeek's losses all k
    (f_e E / (k T) per choice, arXiv 2412.19437).
    """
    return float(len(chosen) * (chosen @ probability))


def gshard(first: Array, probability: Array) -> float:
    """Return l_aux = (1 / E) sum_e (c_e / S) m_e with c_e / S the share of first choices.

    It is `balance` / E^2. Source: GShard (arXiv 2006.16668), algorithm 1.
    """
    return float((first * probability).mean())


def router_z(values: Array) -> float:
    """Return L_z = mean over tokens of (log sum exp of the logits)^2; coefficient 1e-3 in ST-MoE.

    Source: ST-MoE (arXiv 2202.08906); google/flaxformer routing.py _router_z_loss @399ea3a8.
    """
    top = values.max(axis=-1)
    log_sum = top + np.log(np.exp(values - top[..., np.newaxis]).sum(axis=-1))
    return float((log_sum**2).mean())
