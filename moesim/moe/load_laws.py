"""Draws expert shares of every layer from a law whose spread is given in one of several ways."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from moesim.errors import Problem, ScenarioError, nearest
from moesim.moe import drops, loads
from moesim.moe.loads import LoadLaw, Shares

Spread = float | tuple[float, ...]
"""One figure for all layers, or one for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareLaw:
    """The law of expert shares and its spread, given in the one way that suits the law.

    even and uniform take none, dirichlet cv or concentration, lognormal cv or sigma, zipf and
    power_law exponent; power_law takes tokens too.
    """

    law: str = "lognormal"
    cv: Spread | None = None
    """Coefficient of variation of a share, sd / mean, before the shares are normalised."""
    sigma: Spread | None = None
    """Standard deviation of the logarithm of a share."""
    concentration: Spread | None = None
    """Concentration a of a symmetric Dirichlet."""
    exponent: Spread | None = None
    """Exponent of zipf and power_law."""
    tokens: int | None = None
    """Tokens of the batch, which sets the range of power_law."""


Draw = Callable[[int, float, np.random.Generator], Shares]


def even(experts: int, parameter: float, generator: np.random.Generator) -> Shares:
    """Return equal shares; see loads.even."""
    return loads.even(experts, parameter, generator)


def dirichlet(experts: int, parameter: float, generator: np.random.Generator) -> Shares:
    """Return shares of a symmetric Dirichlet, the parameter being its CV; see loads.dirichlet."""
    return loads.dirichlet(experts, parameter, generator)


def lognormal(experts: int, parameter: float, generator: np.random.Generator) -> Shares:
    """Return normalised lognormal shares, the parameter being sigma; see loads.lognormal."""
    weights = np.exp(parameter * generator.standard_normal(experts))
    return np.asarray(weights / weights.sum())


def zipf(experts: int, parameter: float, generator: np.random.Generator) -> Shares:
    """Return shares in proportion to rank^-exponent, the ranks dealt out at random.

    For comparison only: fitted to real loads, Zipf overstates the fullest expert of
    DeepSeek-V2-Lite twofold and misses sorted shares four times as far as a Dirichlet does.
    """
    weights = (1.0 + generator.permutation(experts)) ** -parameter
    return np.asarray(weights / weights.sum())


def power_law(
    experts: int, parameter: float, generator: np.random.Generator, *, tokens: int
) -> Shares:
    """Return shares of weights with density x^-exponent on [1, 0.8 tokens].

    x = (1 + u ((0.8 T)^(1-a) - 1))^(1 / (1-a)) with u uniform; log-uniform for a = 1.

    Source: the expert loads under which ai-dynamo/aiconfigurator times MoE kernels, exponent 1.01
    or 1.2. At E = 256, T = 4096 and 1.01 its CV is 1.78, beyond what open models show (95 %
    quantile 1.31), and its fullest expert is 8.2 times the mean, below DeepSeek-R1's 11.9.
    """
    top = max(1.0, 0.8 * tokens)
    u, rest = generator.random(experts), 1.0 - parameter
    log = u * np.log(top) if abs(rest) < 1e-6 else np.log1p(u * (top**rest - 1.0)) / rest
    weights = np.exp(log)
    return np.asarray(weights / weights.sum())


LAWS: dict[str, Draw] = {
    "even": even,
    "uniform": even,
    "dirichlet": dirichlet,
    "lognormal": lognormal,
    "zipf": zipf,
}
"""The laws by their name in YAML, power_law apart: it needs the tokens of the batch."""

_SPREADS: dict[str, tuple[str, ...]] = {
    "even": (),
    "uniform": (),
    "dirichlet": ("cv", "concentration"),
    "lognormal": ("cv", "sigma"),
    "zipf": ("exponent",),
    "power_law": ("exponent",),
}


def of_load_law(law: LoadLaw) -> ShareLaw:
    """Return a law given by its coefficient of variation as a ShareLaw."""
    return ShareLaw(law=law.law, cv=law.cv if _SPREADS.get(law.law) else None)


def draw_layers(law: ShareLaw, experts: int, generators: Sequence[np.random.Generator]) -> Shares:
    """Return shares[layer, expert], each layer drawn from a generator of its own.

    ScenarioError where the law is unknown, or its spread missing, doubled or of another law.
    """
    parameters = _parameters(law, experts, len(generators))
    if law.law == "power_law":
        tokens = law.tokens or 0
        rows = [
            power_law(experts, parameter, generator, tokens=tokens)
            for parameter, generator in zip(parameters, generators, strict=True)
        ]
    else:
        draw = LAWS[law.law]
        rows = [draw(experts, p, g) for p, g in zip(parameters, generators, strict=True)]
    return np.stack(rows)


def _parameters(law: ShareLaw, experts: int, layers: int) -> list[float]:
    """Return the one parameter that the law is drawn with, per layer."""
    key = _spread_key(law)
    if key is None:
        return [0.0] * layers
    given = getattr(law, key)
    values = [float(v) for v in given] if isinstance(given, tuple) else [float(given)] * layers
    if len(values) != layers:
        raise _problem(key, f"{len(values)} figures for {layers} layers: give one for each")
    if not all(np.isfinite(v) and (v > 0 if key == "concentration" else v >= 0) for v in values):
        raise _problem(key, "finite figures of at least 0; a concentration is above 0")
    if law.law == "power_law" and (law.tokens is None or law.tokens < 1):
        raise _problem("tokens", "power_law needs the tokens of the batch, at least 1")
    if key == "concentration":
        return [drops.dirichlet_cv(experts, v) for v in values]
    if key == "cv" and law.law == "lognormal":
        return [sigma_of(v) for v in values]
    return values


def sigma_of(cv: float) -> float:
    """Return the sigma of a lognormal with the coefficient of variation cv, sqrt(ln(1 + cv^2))."""
    return float(np.sqrt(np.log1p(cv**2)))


def _spread_key(law: ShareLaw) -> str | None:
    if law.law not in _SPREADS:
        allowed = ", ".join(_SPREADS)
        raise _problem("law", f"one of {allowed}.{nearest(law.law, _SPREADS)}")
    allowed_keys = _SPREADS[law.law]
    keys = ("cv", "sigma", "concentration", "exponent")
    given = [key for key in keys if getattr(law, key) is not None]
    if wrong := [key for key in given if key not in allowed_keys]:
        raise _problem(wrong[0], f"law {law.law} takes {' or '.join(allowed_keys) or 'no spread'}")
    if allowed_keys and len(given) != 1:
        raise _problem("law", f"law {law.law} needs one of {' or '.join(allowed_keys)}")
    return given[0] if given else None


def _problem(key: str, message: str) -> ScenarioError:
    return ScenarioError([Problem(f"routing.load.{key}", message)])
