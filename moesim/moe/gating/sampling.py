"""Counts drawn without routing token by token: quick enough for every layer of a large model."""

from collections.abc import Callable

import numpy as np

from moesim.moe.choices import Counts, counts, split_tokens
from moesim.moe.gating.balanced import tokens_taken
from moesim.moe.gating.expected import EXPECTED
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.gshard import second_sent
from moesim.moe.gating.scores import Array
from moesim.moe.gating.table import choose

Sampler = Callable[[Gate, Array, Counts, np.random.Generator], Counts]
"""From the tokens of each source rank to counts[source rank, expert]."""

FEW_TOKENS = 32
"""Ranks with fewer tokens have them routed one by one: `topk_counts` is for many."""


def gate_counts(
    name: str, gate: Gate, shares: Array, tokens: int, *, ranks: int,
    generator: np.random.Generator,
) -> Counts:  # fmt: skip
    """Return counts[source rank, expert] under the rule `name`.

    From `FAST` where the rule is there and every rank has enough tokens, else token by token.
    """
    if _is_fast(name, gate) and tokens >= FEW_TOKENS * ranks:
        return FAST[name](gate, shares, split_tokens(tokens, ranks), generator)
    return counts(choose(name, gate, shares, tokens, generator=generator), gate.experts, ranks)


def group_counts(
    name: str, gate: Gate, shares: Array, groups: Counts, *, generator: np.random.Generator
) -> Counts:
    """Return counts[group, expert] of groups of tokens that choose apart under the rule `name`.

    Expected shares are worked out once for all of them where the rule is fast and treats the tokens
    of a rank apart from others'.
    """
    apart = _is_fast(name, gate) and name not in _TOGETHER
    if apart and len(groups) and int(groups.min()) >= FEW_TOKENS:
        return FAST[name](gate, shares, groups, generator)
    drawn = [
        gate_counts(name, gate, shares, int(tokens), ranks=1, generator=generator)[0]
        for tokens in groups
    ]
    return np.asarray(drawn, dtype=np.int64)


_TOGETHER = ("base", "expert_choice")
"""Rules that balance the tokens of all ranks together."""


def _is_fast(name: str, gate: Gate) -> bool:
    if name == "gshard_top2":
        coin = gate.second_policy in ("threshold", "random_gshard", "random_mtf")
        return gate.second_policy != "sampling" and (gate.normalise or not coin)
    return name in FAST


def topk_counts(inclusion: Array, tokens: Counts | int, generator: np.random.Generator) -> Counts:
    """Return counts [..., expert] of tokens with k distinct choices, given P(e among the k) = p_e.

    Independent counts with mean T p_e and variance T a_e, conditioned on their sum, T k, by moving
    single assignments. With a_e - a_e^2 / sum(a) = p_e (1 - p_e) every count keeps its exact mean
    and variance, those of Binomial(T, p_e), and pairs get the covariance -T a_i a_j / sum(a), which
    is exact for k = 1 and for equal p and otherwise an approximation: Hajek's for sampling
    without replacement (Ann. Math. Statist. 35, 1964). Moving whole assignments adds about
    1 / sqrt(T k) to the variances. Leading axes are layers or ranks.
    """
    rows = np.asarray(tokens)[..., np.newaxis]
    spread = _spread_before_the_sum(np.clip(inclusion, 0.0, 1.0))
    drawn = _independent(inclusion, spread, rows, generator)
    n = drawn.reshape(-1, drawn.shape[-1])
    p = np.broadcast_to(inclusion, drawn.shape).reshape(n.shape)
    limit = np.broadcast_to(rows, drawn.shape).reshape(n.shape)
    ease = np.broadcast_to(spread / np.maximum(inclusion, 1e-300), drawn.shape).reshape(n.shape)
    wanted = np.rint((limit * p).sum(axis=1)).astype(np.int64)
    while True:
        missing = wanted - n.sum(axis=1)
        off = np.flatnonzero(missing)
        if len(off) == 0:
            break
        rising = missing[off, np.newaxis] > 0
        # in the mean both are T a_e, and they vanish where nothing may be added or taken
        open_to = (limit[off] - n[off]) * p[off] / np.maximum(1.0 - p[off], 1e-9)
        room = np.where(rising, open_to, n[off]) * ease[off]
        moved = generator.multinomial(np.abs(missing[off]), _normal(room))
        n[off] = np.clip(n[off] + np.where(rising, moved, -moved), 0, limit[off])
    return n.reshape(drawn.shape)


def _spread_before_the_sum(p: Array) -> Array:
    """Return a with a_e - a_e^2 / sum(a) = p_e (1 - p_e), by iteration (half of sum(a) at most)."""
    goal = p * (1.0 - p)
    a = goal
    for _ in range(30):
        part = a / np.maximum(a.sum(axis=-1, keepdims=True), 1e-300)
        a = goal / (1.0 - np.minimum(part, 0.5))
    return a


def _independent(p: Array, spread: Array, rows: Counts, generator: np.random.Generator) -> Counts:
    """Return counts with mean T p and variance T a: Binomial(T p / q, q), q = 1 - a / p.

    For one choice q is zero: a Poisson variable, whose condition on the sum is multinomial.
    """
    q = 1.0 - spread / np.maximum(p, 1e-300)
    mean = rows * p
    few = q < 1e-6
    trials = mean / np.where(few, 1.0, q)
    whole = np.floor(trials + generator.random(trials.shape)).astype(np.int64)
    binomial = generator.binomial(whole, np.where(few, 0.0, q))
    found = np.where(few, generator.poisson(np.where(few, mean, 0.0)), binomial)
    return np.minimum(found, rows).astype(np.int64)


def _normal(weights: Array) -> Array:
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def single_counts(shares: Array, tokens: Counts | int, generator: np.random.Generator) -> Counts:
    """Return counts [..., expert] of tokens with one choice each: multinomial, exact."""
    return generator.multinomial(tokens, shares / shares.sum(axis=-1, keepdims=True))


def _topk(name: str) -> Sampler:
    def sample(gate: Gate, shares: Array, tokens: Counts, generator: np.random.Generator) -> Counts:
        inclusion = EXPECTED[name](gate, shares)
        if gate.top_k == 1:
            return single_counts(inclusion, tokens, generator)
        return topk_counts(inclusion, tokens, generator)

    return sample


def _single(name: str) -> Sampler:
    def sample(gate: Gate, shares: Array, tokens: Counts, generator: np.random.Generator) -> Counts:
        return single_counts(EXPECTED[name](gate, shares), tokens, generator)

    return sample


def gshard_top2(
    gate: Gate, shares: Array, tokens: Counts, generator: np.random.Generator
) -> Counts:
    """Return first plus second counts, exact in distribution.

    First choices are multinomial; of those of expert i a binomial number is sent on, to j with
    probability s_j / (1 - s_i).
    """
    share = shares / shares.sum()
    first = generator.multinomial(tokens, share)
    passed = generator.binomial(first, np.clip(second_sent(gate, share), 0.0, 1.0))
    others = np.where(np.eye(len(share), dtype=bool), 0.0, share)
    others /= np.maximum(others.sum(axis=1, keepdims=True), 1e-300)
    second = generator.multinomial(passed, others)
    return np.asarray(first + second.sum(axis=-2))


def base(gate: Gate, shares: Array, tokens: Counts, generator: np.random.Generator) -> Counts:
    """Return T / E per expert, whose source ranks are random: exact, as tokens are alike."""
    del shares
    left = split_tokens(int(tokens.sum()), gate.experts)
    found = np.zeros((len(tokens), gate.experts), dtype=np.int64)
    for rank, number in enumerate(tokens):
        found[rank] = generator.multivariate_hypergeometric(left, int(number), method="marginals")
        left = left - found[rank]
    return found


def expert_choice(
    gate: Gate, shares: Array, tokens: Counts, generator: np.random.Generator
) -> Counts:
    """Return C tokens per expert, from source ranks at random.

    Exact for each expert; that a token's scores for two experts depend on each other, by the
    softmax, is left out.
    """
    del shares
    taken = tokens_taken(gate, int(tokens.sum()))
    drawn = generator.multivariate_hypergeometric(
        tokens, taken, size=gate.experts, method="marginals"
    )
    return np.asarray(drawn.T)


FAST: dict[str, Sampler] = {
    "softmax_topk": _topk("softmax_topk"),
    "noisy_topk": _topk("noisy_topk"),
    "st_moe": _topk("st_moe"),
    "switch_top1": _single("switch_top1"),
    "hash": _single("hash"),
    "gshard_top2": gshard_top2,
    "base": base,
    "expert_choice": expert_choice,
}
"""Rules whose counts can be drawn without tokens; group limits and hierarchies need tokens."""
