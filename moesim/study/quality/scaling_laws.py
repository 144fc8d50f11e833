"""The loss that a network reaches, from its size and its training: published laws of MoE models.

Losses are in nats per token of the data set that a law was fitted to: compare them within one law
only. A law refuses values further than three times beyond its range, unless `extrapolate` is set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log10
from types import MappingProxyType

from moesim.errors import ModelError, nearest
from moesim.study.quality.validity_range import Law, check


@dataclass(frozen=True, slots=True, kw_only=True)
class ClarkFit:
    """Coefficients of clark2022 for one way to route."""

    a: float
    b: float
    c: float
    d: float
    e_start: float
    e_max: float


CLARK2022 = Law(
    name="clark2022",
    source="Clark et al. 2022 (arXiv 2202.01169), Table 3; coefficients rounded to three decimals",
    ranges=MappingProxyType(
        {"active_params": (15e6, 1.3e9), "experts": (1, 512), "tokens": (130e9, 130e9)}
    ),
    note=(
        "Fitted to decoders with k = 1 in every other layer, all trained on 130B tokens; against "
        "the authors' own curves off by 0.9 % (s_base), 1.9 % (rl_r), 1.3 % (hash) in the mean."
    ),
)

CLARK2022_FITS: Mapping[str, ClarkFit] = MappingProxyType(
    {
        "s_base": ClarkFit(a=-0.082, b=-0.108, c=0.009, d=1.104, e_start=1.847, e_max=314.478),
        "rl_r": ClarkFit(a=-0.083, b=-0.126, c=0.012, d=1.111, e_start=1.880, e_max=469.982),
        "hash": ClarkFit(a=-0.087, b=-0.136, c=0.012, d=1.157, e_start=4.175, e_max=477.741),
    }
)
"""By the router: Sinkhorn-BASE, reinforcement learning, hash layers."""


def clark2022(
    active_params: float,
    experts: float,
    router: str = "s_base",
    *,
    tokens: float = 130e9,
    extrapolate: bool = False,
) -> float:
    """Return the loss of a MoE with `experts` experts and as many active parameters.

    log10 L = a log10 N + b log10 Eh + c log10 N log10 Eh + d,
    1/Eh = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max.
    `tokens` do not change the loss: all runs had 130B, and others are refused.

    Source: Clark et al. 2022 (arXiv 2202.01169), coefficients of Table 3.
    """
    check(CLARK2022, extrapolate, active_params=active_params, experts=experts, tokens=tokens)
    fit = _fit(router)
    size, width = log10(active_params), log10(saturated_experts(fit, experts))
    return float(10 ** (fit.a * size + fit.b * width + fit.c * size * width + fit.d))


def saturated_experts(fit: ClarkFit, experts: float) -> float:
    """Return Eh: E_start at one expert, towards E_max at many (see clark2022)."""
    offset = 1 / (1 / fit.e_start - 1 / fit.e_max)
    return 1 / (1 / (experts - 1 + offset) + 1 / fit.e_max)


def clark2022_dense(params: float, *, tokens: float = 130e9, extrapolate: bool = False) -> float:
    """Return the loss of a dense network: (N_c / N)^alpha, alpha 0.078, N_c 3.568e13.

    Source: Clark et al. 2022 (arXiv 2202.01169), the dense runs of the same data set.
    """
    check(CLARK2022, extrapolate, active_params=params, tokens=tokens)
    return float((3.568e13 / params) ** 0.078)


def clark2022_multiplier(
    active_params: float,
    experts: float,
    router: str = "s_base",
    *,
    tokens: float = 130e9,
    extrapolate: bool = False,
) -> float:
    """Return how many times as many parameters a dense network of equal loss has.

    N_dense solves L(N_dense, 1) = L(N, E) of clark2022, in closed form; both see as many tokens.

    Source: Clark et al. 2022 (arXiv 2202.01169), effective parameter count.
    """
    check(CLARK2022, extrapolate, active_params=active_params, experts=experts, tokens=tokens)
    fit = _fit(router)
    size, width = log10(active_params), log10(saturated_experts(fit, experts))
    one = log10(fit.e_start)
    dense = (size * (fit.a + fit.c * width) + fit.b * (width - one)) / (fit.a + fit.c * one)
    return float(10 ** (dense - size))


def clark2022_cutoff_params(router: str = "s_base") -> float:
    """Return the active parameters from which more experts do not lower the loss: 10^(-b/c).

    It lies far beyond the fitted range, and c has one digit that counts: a factor of five.
    """
    fit = _fit(router)
    return float(10 ** (-fit.b / fit.c))


def _fit(router: str) -> ClarkFit:
    if router not in CLARK2022_FITS:
        known = ", ".join(CLARK2022_FITS)
        raise ModelError(f"clark2022 knows {known}.{nearest(router, CLARK2022_FITS)}")
    return CLARK2022_FITS[router]


@dataclass(frozen=True, slots=True, kw_only=True)
class KrajewskiFit:
    """Coefficients of krajewski2024; g is 0 for dense networks."""

    a: float
    alpha: float
    b: float
    beta: float
    c: float = 0.47
    g: float = 0.0
    gamma: float = 0.0


KRAJEWSKI2024 = Law(
    name="krajewski2024",
    source="Krajewski et al. 2024 (arXiv 2402.07871), Eq. 9 and Table 1",
    ranges=MappingProxyType(
        {"total_params": (129e6, 3.7e9), "tokens": (16e9, 130e9), "granularity": (1, 16)}
    ),
    note="Fitted to decoders with 64 times as many experts as are active.",
)

KRAJEWSKI2024_MOE = KrajewskiFit(a=18.1, alpha=0.115, b=30.8, beta=0.147, g=2.1, gamma=0.58)
KRAJEWSKI2024_DENSE = KrajewskiFit(a=16.3, alpha=0.126, b=26.7, beta=0.127)


def krajewski2024(
    total_params: float, tokens: float, granularity: float, *, extrapolate: bool = False
) -> float:
    """Return the loss of a MoE by its total parameters without embeddings.

    L = c + (g / G^gamma + a) / N^alpha + b / D^beta; G experts take the place of one as wide as a
    dense FFN. N is the total: read as active parameters, a MoE would be worse than dense.

    Source: Krajewski et al. 2024 (arXiv 2402.07871), Eq. 9 and Table 1.
    """
    check(
        KRAJEWSKI2024,
        extrapolate,
        total_params=total_params,
        tokens=tokens,
        granularity=granularity,
    )
    return krajewski_loss(KRAJEWSKI2024_MOE, total_params, tokens, granularity)


def krajewski2024_dense(params: float, tokens: float, *, extrapolate: bool = False) -> float:
    """Return the loss of a dense network: c + a / N^alpha + b / D^beta.

    Source: Krajewski et al. 2024 (arXiv 2402.07871), Table 1.
    """
    check(KRAJEWSKI2024, extrapolate, total_params=params, tokens=tokens)
    return krajewski_loss(KRAJEWSKI2024_DENSE, params, tokens)


def krajewski_loss(
    fit: KrajewskiFit, params: float, tokens: float, granularity: float = 1.0
) -> float:
    """Return c + (g / G^gamma + a) / N^alpha + b / D^beta, whatever the range."""
    size = size_coefficient(fit, granularity) / params**fit.alpha
    return float(fit.c + size + fit.b / tokens**fit.beta)


def size_coefficient(fit: KrajewskiFit, granularity: float) -> float:
    """Return g / G^gamma + a."""
    return float(fit.g / granularity**fit.gamma + fit.a)
