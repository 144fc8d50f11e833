"""Bias balancing: DeepSeek-V3's sign update, run until the load is flat."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.moe.gating.gate import Gate
from moesim.moe.gating.limited import chosen_in_groups
from moesim.moe.gating.scores import Array, logits, sigmoid


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasUpdate:
    """How the bias moves, and when the load counts as flat."""

    tokens: int = 1024
    """Tokens of a step, drawn anew each time."""
    speed: float = 0.001
    """What a step adds or takes: DeepSeek-V3's."""
    window: int = 50
    """Steps over which the load is judged, and the bias averaged."""
    flat: float = 0.05
    """CV of the load of a window at which the update ends, beyond the scatter of its tokens."""
    most_steps: int = 2000
    """A bias beyond 1 moves no expert further: sigmoid scores lie between 0 and 1."""


@dataclass(frozen=True, slots=True)
class Balanced:
    """A gate whose bias evens out a popularity, and how far it came."""

    gate: Gate
    steps: int
    cv: float
    """CV of the load over the last window, the scatter of its tokens taken off."""


def balance_bias(
    gate: Gate, shares: Array, generator: np.random.Generator, update: BiasUpdate | None = None
) -> Balanced:
    """Return the gate with the bias at which deepseek_v3 spreads this popularity evenly.

    In every step b_e rises by `speed` where expert e has fewer tokens than the mean and falls where
    it has more, on fresh tokens. The bias returned is the mean of the last window: single ones
    hunt round it.

    Source: DeepSeek-V3 (arXiv 2412.19437): 0.001 for 14.3T tokens, then 0.
    """
    update = update or BiasUpdate()
    bias = np.asarray(gate.bias) if gate.bias else np.zeros(gate.experts)
    steps = 0
    while True:
        counts, mean_bias = np.zeros(gate.experts, dtype=np.int64), np.zeros(gate.experts)
        for _ in range(update.window):
            found = _counts(gate, shares, bias, update.tokens, generator)
            counts += found
            mean_bias += bias / update.window
            bias = bias + update.speed * np.sign(found.mean() - found)
        steps += update.window
        cv = _cv_of_shares(counts, gate, update.tokens * update.window)
        if cv <= update.flat or steps >= update.most_steps:
            return Balanced(replace(gate, bias=tuple(mean_bias.tolist())), steps, cv)


def _counts(
    gate: Gate, shares: Array, bias: Array, tokens: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    scores = sigmoid(logits(gate, shares, tokens, generator)) + bias
    chosen = chosen_in_groups(gate, scores, count_best=2)
    return np.bincount(chosen.ravel(), minlength=gate.experts)


def _cv_of_shares(counts: NDArray[np.int64], gate: Gate, tokens: int) -> float:
    """Return the CV of counts less what independent choices scatter: CV^2 = (1 - k/E) E / (k T)."""
    scatter = (1 - gate.top_k / gate.experts) * gate.experts / (gate.top_k * tokens)
    return float(np.sqrt(max(0.0, counts.var() / counts.mean() ** 2 - scatter)))
