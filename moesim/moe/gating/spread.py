"""From a balancing knob to the spread of the load: only as far as a published figure reaches.

A loss coefficient is no free number here: each mapping names its source, and refuses settings
between or beyond those that the source measured.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from moesim.errors import ModelError
from moesim.moe import drops


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How unevenly a trained router spreads its load under given losses."""

    cv: float
    """Coefficient of variation of the load."""
    cv_importance: float | None
    """Coefficient of variation of the summed gate weights, where the source has it."""
    imbalance: float | None
    """Fullest over mean, where the source has it."""
    is_bound: bool
    """Whether the load is only known to be at most this uneven."""
    source: str


@dataclass(frozen=True, slots=True)
class _Row:
    importance: float
    load: float
    cv_importance: float
    cv_load: float
    imbalance: float


_SHAZEER = "Shazeer et al. 2017 (arXiv 1701.06538), table 6: MoE-256, k = 4, after training"

SHAZEER_TABLE_6 = (
    _Row(0.0, 0.0, 3.04, 3.01, 17.80),
    _Row(0.2, 0.0, 0.06, 0.17, 1.47),
    _Row(0.0, 0.2, 0.22, 0.04, 1.15),
    _Row(0.1, 0.1, 0.06, 0.05, 1.14),
    _Row(0.01, 0.01, 0.48, 0.11, 1.37),
    _Row(1.0, 1.0, 0.03, 0.02, 1.07),
)
"""Loss weights, and CV of importance, CV of load and fullest / mean measured under them."""


def shazeer(w_importance: float, w_load: float) -> Spread:
    """Return the spread under the importance and load losses of noisy top-k.

    Rows of table 6 as printed. Between them along two lines that have rows at both ends: equal
    weights from 0.01 to 1 (logarithms against logarithms), and weights that sum to 0.2
    (logarithms against the share of one). Anything else is refused, also 0 to 0.01, where the CV
    falls from 3 to 0.1 on a path that nobody measured.

    Source: Shazeer et al. 2017 (arXiv 1701.06538), table 6.
    """
    for row in SHAZEER_TABLE_6:
        if math.isclose(row.importance, w_importance) and math.isclose(row.load, w_load):
            return _spread(row, row, 0.0)
    none, importance_only, load_only, both, weak, strong = SHAZEER_TABLE_6
    del none
    if math.isclose(w_importance, w_load) and weak.load <= w_load <= strong.load:
        low, high = (weak, both) if w_load <= both.load else (both, strong)
        return _spread(low, high, math.log(w_load / low.load) / math.log(high.load / low.load))
    if math.isclose(w_importance + w_load, 0.2) and min(w_importance, w_load) >= 0:
        low, high = (importance_only, both) if w_load <= both.load else (both, load_only)
        return _spread(low, high, (w_load - low.load) / (high.load - low.load))
    raise ModelError(
        f"no published spread for loss weights {w_importance:g} (importance) and {w_load:g} (load):"
        " table 6 of Shazeer et al. 2017 covers (0, 0), equal weights from 0.01 to 1, and weights"
        " that sum to 0.2. Give the CV of the load instead."
    )


def _spread(low: _Row, high: _Row, part: float) -> Spread:
    def between(a: float, b: float) -> float:
        return a if part == 0 else a ** (1 - part) * b**part

    return Spread(
        cv=between(low.cv_load, high.cv_load),
        cv_importance=between(low.cv_importance, high.cv_importance),
        # what exceeds 1 is interpolated: 1 is the floor of a ratio of fullest to mean
        imbalance=1 + between(low.imbalance - 1, high.imbalance - 1),
        is_bound=False,
        source=_SHAZEER,
    )


def switch(alpha: float, experts: int, group_tokens: int) -> Spread:
    """Return the most that the load of a Switch router can be spread: what drops 1 % at CF 1.25.

    The paper says that with alpha = 1e-2 typically less than 1 % of the tokens are dropped,
    whatever the number of experts. The CV is that of Dirichlet shares with that drop in closed
    form; 0 where groups are so small that equal shares already drop 1 %.

    Source: Switch Transformers (JMLR 2022), sec. 2.2; `drops.dirichlet`.
    """
    if not math.isclose(alpha, 1e-2):
        raise ModelError(f"Switch reports drops for alpha = 1e-2 only, not for {alpha:g}")
    slots = math.ceil(1.25 * group_tokens / experts)
    low, high = math.log(drops.SMALLEST_CV), math.log(3.0)
    if _dropped(experts, group_tokens, slots, low) >= 0.01:
        high = low = -math.inf
    while high - low > 1e-3:
        middle = (low + high) / 2
        if _dropped(experts, group_tokens, slots, middle) < 0.01:
            low = middle
        else:
            high = middle
    return Spread(
        cv=math.exp(low),
        cv_importance=None,
        imbalance=None,
        is_bound=True,
        source="Switch Transformers (JMLR 2022), sec. 2.2: drops typically < 1 % at alpha 1e-2",
    )


def _dropped(experts: int, tokens: int, slots: int, log_cv: float) -> float:
    concentration = drops.concentration_for(experts, math.exp(log_cv))
    return drops.dirichlet(tokens, experts, 1, slots, concentration)


def deepseek_v3() -> Spread:
    """Return the spread under bias balancing: the bias moves until every expert has the mean load.

    What is left is the scatter of independent choices (CV 0 of the shares themselves). Loads at
    inference differ: text unlike the training mix leaves the bias behind.

    Source: DeepSeek-V3 (arXiv 2412.19437); `bias.balance_bias` gives the bias itself.
    """
    return Spread(
        cv=0.0,
        cv_importance=None,
        imbalance=1.0,
        is_bound=False,
        source="DeepSeek-V3 (arXiv 2412.19437): sign updates until the load is flat",
    )


SPREADS: dict[str, Callable[..., Spread]] = {
    "shazeer": shazeer,
    "switch": switch,
    "deepseek_v3": deepseek_v3,
}
"""The mappings by name."""
