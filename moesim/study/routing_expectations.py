"""What to expect of a routed layer, beside what was drawn: rows per expert, experts touched."""

import numpy as np

from moesim.errors import ModelError
from moesim.moe.assignment import Router
from moesim.moe.counts import inclusion
from moesim.moe.gating.expected import expected_load
from moesim.moe.gating.gshard import gshard_k_eff
from moesim.moe.loads import Shares
from moesim.study.routing_study import RoutedLayer


def assignments_per_expert(layer: RoutedLayer) -> Shares | None:
    """Return the assignments of each expert per token that its popularity lets expect.

    None where the gating rule has no closed form.
    """
    router, shares = layer.router, layer.drawn.shares
    if router.law.law == "even":
        return np.full(router.experts, router.top_k / router.experts)
    if router.mixed is not None:
        mixture = router.mixed.mixture
        weights = np.array(mixture.weights) / sum(mixture.weights)
        return np.asarray(weights @ inclusion(mixture.shares[:, 0], router.top_k))
    if router.gate is None:
        return inclusion(shares, router.top_k)
    try:
        return expected_load(router.rule, router.gate, shares)
    except ModelError:
        return None


def assignments_per_token(layer: RoutedLayer) -> float | None:
    """Return how many experts get a token in the mean: 1 + E[chance of the second] for GShard."""
    router: Router = layer.router
    if router.rule == "gshard_top2" and router.gate is not None:
        try:
            return gshard_k_eff(router.gate, layer.drawn.shares)
        except ModelError:
            return None
    expected = assignments_per_expert(layer)
    return float(expected.sum()) if expected is not None else None


def chosen_by_a_token(layer: RoutedLayer) -> Shares:
    """Return how likely a token chooses each expert: as expected, else as its tokens did."""
    expected = assignments_per_expert(layer)
    if expected is None:
        expected = layer.drawn.routed / layer.router.tokens
    return np.minimum(expected, 1.0)
