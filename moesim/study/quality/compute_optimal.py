"""The best loss for so many FLOP under krajewski2024, and the dense FLOP that reach it too."""

from dataclasses import dataclass

from moesim.study.quality.scaling_laws import (
    KRAJEWSKI2024,
    KRAJEWSKI2024_DENSE,
    KRAJEWSKI2024_MOE,
    KrajewskiFit,
    krajewski_loss,
    size_coefficient,
)
from moesim.study.quality.validity_range import check


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimum:
    """The network and its training that make the most of a number of FLOP."""

    active_params: float
    total_params: float
    tokens: float
    loss: float


def moe_optimum(
    train_flop: float,
    granularity: float,
    *,
    total_per_active: float = 64.0,
    extrapolate: bool = False,
) -> Optimum:
    """Return the MoE of least loss for 6 N_active D = `train_flop`, routing cost left out.

    dL/dN = 0 gives N_active^(alpha + beta) = alpha A r^-alpha / (beta b) (F / 6)^beta, with
    A = g / G^gamma + a and r = total / active parameters: 64 where only the FFN counted, 43 for
    whole blocks (12 d^2 become 516 d^2).

    Source: krajewski2024 of scaling_laws.py, its section on compute-optimal training.
    """
    found = _optimum(KRAJEWSKI2024_MOE, train_flop, granularity, total_per_active)
    _check(found, granularity, extrapolate)
    return found


def dense_optimum(train_flop: float, *, extrapolate: bool = False) -> Optimum:
    """Return the dense network of least loss for 6 N D = `train_flop`."""
    found = _optimum(KRAJEWSKI2024_DENSE, train_flop, 1.0, 1.0)
    _check(found, 1.0, extrapolate)
    return found


def dense_compute_ratio(
    train_flop: float,
    granularity: float,
    *,
    total_per_active: float = 64.0,
    extrapolate: bool = False,
) -> float:
    """Return how many times as many FLOP the best dense network of equal loss takes.

    Along the dense optima L - c falls as F^(-alpha beta / (alpha + beta)), which is solved for F.
    """
    moe = moe_optimum(
        train_flop, granularity, total_per_active=total_per_active, extrapolate=extrapolate
    )
    fit = KRAJEWSKI2024_DENSE
    here = _optimum(fit, train_flop, 1.0, 1.0)
    power = fit.alpha * fit.beta / (fit.alpha + fit.beta)
    ratio = float(((here.loss - fit.c) / (moe.loss - fit.c)) ** (1 / power))
    _check(_optimum(fit, ratio * train_flop, 1.0, 1.0), 1.0, extrapolate)
    return ratio


def _optimum(
    fit: KrajewskiFit, train_flop: float, granularity: float, total_per_active: float
) -> Optimum:
    size = size_coefficient(fit, granularity) / total_per_active**fit.alpha
    slope = fit.alpha * size / (fit.beta * fit.b) * (train_flop / 6) ** fit.beta
    active = slope ** (1 / (fit.alpha + fit.beta))
    tokens = train_flop / (6 * active)
    total = total_per_active * active
    loss = krajewski_loss(fit, total, tokens, granularity)
    return Optimum(active_params=active, total_params=total, tokens=tokens, loss=loss)


def _check(found: Optimum, granularity: float, extrapolate: bool) -> None:
    check(
        KRAJEWSKI2024,
        extrapolate,
        total_params=found.total_params,
        tokens=found.tokens,
        granularity=granularity,
    )
