"""Who is dropped: the tokens of a routing group placed one by one, in order and by policy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.moe.assignment import Router, by_device, counts_of, slots_of
from moesim.moe.choices import Choices
from moesim.moe.counts import inclusion
from moesim.moe.gating.gate import Gate
from moesim.moe.gating.inclusion import shares_included
from moesim.moe.gating.table import choose
from moesim.moe.groups import padding_occupies
from moesim.moe.keeping import Mask, keep_by_rule, keep_in_budget, spared_tokens, without
from moesim.moe.loads import Shares

MOST_SCORES = 2**22
"""Scores of a token for an expert in one group; a larger group is stood for by a smaller one."""
_FEW_ROWS = 64
"""Where experts of the smaller group would get fewer rows than this it is up to four times it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A routing group to be placed token by token, or a smaller one of the same shape."""

    router: Router
    """With as many tokens to a group as are placed."""
    slots: int
    """Of an expert, or of a rank where its experts share them."""
    sequences: float
    """Sequences that the group holds; less than one where it is part of a sequence."""

    @property
    def tokens(self) -> int:
        """Tokens placed, padding included."""
        return self.router.group_tokens

    def places(self) -> NDArray[np.float64]:
        """Return where in the group each token stands, from 0 to 1."""
        return (np.arange(self.tokens) + 0.5) / self.tokens

    def places_in_sequence(self) -> NDArray[np.float64]:
        """Return where in its sequence each token stands; in the group, if that is a part of it."""
        return np.asarray((self.places() * max(1.0, self.sequences)) % 1.0)

    def padding(self) -> Mask:
        """Return the tokens that are padding: the last of each sequence."""
        rule = self.router.capacity
        share = 0.0 if rule is None else rule.padding_fraction
        return np.asarray(self.places_in_sequence() >= 1.0 - share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What became of the choices [tokens, k] of one routing group."""

    wanted: Mask
    kept: Mask
    weights: NDArray[np.float64]
    """Of the router; 0 where there is no choice."""


def queue(router: Router, sequence_tokens: int) -> Queue | None:
    """Return the routing group of a router as a queue; None where there is no capacity.

    Slots shrink with a group that is too large to be placed. Loads of a smaller group scatter a
    little more: relative to their mean, by the square root of what it is smaller.
    """
    slots = slots_of(router, router.group_tokens)
    if slots is None:
        return None
    enough = min(_FEW_ROWS * router.experts // router.top_k, 4 * MOST_SCORES // router.experts)
    tokens = min(router.group_tokens, max(1, enough, MOST_SCORES // router.experts))
    shrunk = replace(router, group_tokens=tokens)
    return Queue(
        router=shrunk,
        slots=round(slots * tokens / router.group_tokens),
        sequences=router.group_tokens / sequence_tokens,
    )


def place(
    queue: Queue, shares: Shares, groups: int, generator: np.random.Generator
) -> list[Placed]:
    """Return who finds a slot in each of `groups` groups, for experts with these shares."""
    router = queue.router
    popular = None if router.phi is not None else popularity(router, shares)
    found = []
    for _ in range(groups):
        here = popularity(router, shares, generator) if popular is None else popular
        found.append(_place(queue, group_choices(router, here, generator), generator))
    return found


def _place(queue: Queue, choices: Choices, generator: np.random.Generator) -> Placed:
    router, padding = queue.router, queue.padding()
    rule = router.capacity
    assert rule is not None  # else there is no queue
    if not by_device(router):
        kept = keep_by_rule(rule, choices, queue.slots, generator, padding=padding)
        return _placed(choices, kept)
    routed = choices if padding_occupies(rule) else without(choices, padding)
    sequence = max(1, round(queue.tokens / max(1.0, queue.sequences)))
    spared = spared_tokens(queue.tokens, sequence, rule.spared_fraction, generator)
    devices = np.arange(router.experts) * router.ranks // router.experts
    policy = rule.policy or "probs"
    kept = keep_in_budget(
        routed, devices, queue.slots, generator, policy=policy, spared=spared
    )  # fmt: skip
    return _placed(choices, kept)


def _placed(choices: Choices, kept: Mask) -> Placed:
    return Placed(wanted=choices.experts >= 0, kept=kept, weights=choices.weights)


def popularity(
    router: Router, shares: Shares, generator: np.random.Generator | None = None
) -> Shares:
    """Return how popular experts are with the gating rule, given their shares of the load.

    Where no rule is named, as popular as they must be for k choices to include each as often as
    its share says. With `generator` a burst is drawn first: one more draw of how often.
    """
    if router.gate is not None and router.phi is None:
        return shares
    often = inclusion(shares, router.top_k)
    if generator is not None:
        often = counts_of(router, shares, [router.group_tokens], generator)[0] / router.group_tokens
    return shares_included(often, router.top_k)


def group_choices(router: Router, popular: Shares, generator: np.random.Generator) -> Choices:
    """Return the choices of one group's tokens; even loads deal experts out in turn."""
    tokens, experts, k = router.group_tokens, router.experts, router.top_k
    if router.law.law == "even" and not router.shares:
        dealt = (np.arange(tokens)[:, None] * k + np.arange(k)) % experts
        weights = np.sort(generator.random((tokens, k)), axis=1)[:, ::-1]
        return Choices(dealt, weights / weights.sum(axis=1, keepdims=True))
    gate = router.gate or Gate(experts=experts, top_k=k)
    return choose(router.rule, gate, popular, tokens, generator=generator)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What some of the choices lost, over all groups placed."""

    wanted: int
    dropped: int
    weight_fraction: float
    """Of the router's weights, the share that was dropped."""
    residual_fraction: float
    """Of the tokens, those that no expert computes: they pass on the residual path alone."""


def lost(placed: Sequence[Placed], tokens: Mask, choice: int | None = None) -> Lost:
    """Return what the choices of `tokens` lost, or only their `choice`-th ones (from 0)."""
    columns = slice(None) if choice is None else slice(choice, choice + 1)
    here = [
        (one.wanted[tokens, columns], one.kept[tokens, columns], one.weights[tokens, columns])
        for one in placed
    ]
    wanted = np.concatenate([wants.ravel() for wants, _, _ in here])
    gone = np.concatenate([(wants & ~kept).ravel() for wants, kept, _ in here])
    weights = np.concatenate([weights.ravel() for _, _, weights in here])
    alone = np.concatenate([wants.any(axis=1) & ~kept.any(axis=1) for wants, kept, _ in here])
    whole = float(weights[wanted].sum())
    return Lost(
        wanted=int(wanted.sum()),
        dropped=int(gone.sum()),
        weight_fraction=float(weights[gone].sum()) / whole if whole else 0.0,
        residual_fraction=float(alone.mean()) if alone.size else 0.0,
    )
